"""Runs many command lines in one process and prints what each gave: ``python -m tests.cli.bad_paths FILE``.

The file is a JSON list of [words, environment]. The answer is a JSON list of [exit status, stdout, stderr].
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path

from reelwright.cli import main


def outcome(words: list[str], environment: dict[str, str]) -> tuple[int | str | None, str, str]:
    """What one command line gave; an exception that left it is a text in place of the exit status."""
    out, err = io.StringIO(), io.StringIO()
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status: int | str | None = main(words)
    except SystemExit as ended:
        status = ended.code
    except Exception as error:  # noqa: BLE001 -- what it is called is the outcome
        status = repr(error)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return status, out.getvalue(), err.getvalue()


if __name__ == "__main__":
    print(json.dumps([outcome(*case) for case in json.loads(Path(sys.argv[1]).read_text("utf-8"))]))
