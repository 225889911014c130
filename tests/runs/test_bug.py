"""A bug of Reelwright is an INTERNAL failure: no video, a record of the run, and the status 70."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reelwright.cli import main
from reelwright.engines import draft


def test_a_bug_leaves_no_video_and_a_record_with_the_name_of_the_exception(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(draft.DraftEngine, "generate", broken)
    words = ["generate", str(photo), "hold", "-o", str(tmp_path / "a.mp4"), "--frames", "9", "--json"]
    assert main([*words, "--set", f"state_dir={tmp_path / 'state'}"]) == 70
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["code"] == "INTERNAL"
    assert "ZeroDivisionError" in said["message"]
    assert list(tmp_path.glob("*.mp4")) == []
    assert list((tmp_path / "state" / "runs").glob("*/*.json"))
