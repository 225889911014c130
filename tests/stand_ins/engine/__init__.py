"""Makes a checkout a stand-in: scripted faults, a record of launches, videos without a model.

`tests.stand_ins.checkout` copies it into every stand-in checkout as the package ``stand_in``. `launch` reads the
script and writes the record, `failures` has the real texts of failures, `film` and `saving` write the video, `bars`
draws progress as tqdm does, `log` writes lines as loguru does, `weights` opens checkpoint files as torch does.
"""

from __future__ import annotations
