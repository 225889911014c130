"""What makes this checkout a stand-in: scripted faults, a record of launches, films without a model.

Not part of the official layout. `launch` knows the script and the record, `failures` the real texts of
failures, `film` writes the video, `bars` draws progress as tqdm does, `weights` opens checkpoint files as
torch does.

    >>> from wan.stand_in.launch import begin  # doctest: +SKIP
"""

from __future__ import annotations
