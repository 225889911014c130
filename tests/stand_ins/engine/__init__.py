"""What makes a checkout a stand-in: scripted faults, a record of launches, films without a model.

Copied into every stand-in checkout as its package ``stand_in`` (see `tests.stand_ins.checkout`). `launch` knows the
script and the record, `failures` the real texts of failures, `film` and `saving` write the video, `bars` draws
progress as tqdm does, `log` writes lines as loguru does, `weights` opens checkpoint files as torch does.
"""

from __future__ import annotations
