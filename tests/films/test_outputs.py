"""No output is an input, and only a film's own files are replaced: found before anything is rendered."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reelwright.cli import main
from reelwright.core.errors import VideoGenerationError
from reelwright.core.manifest import manifest_of, manifest_path
from reelwright.films.assembly import film
from reelwright.films.render import FilmOrder
from reelwright.films.storyboard import load_storyboard
from reelwright.runs.output_paths import refuse_inputs
from tests.films.small import BOARD, digest, draft_settings, make


def refused(folder: Path, code: str, saying: str, text: str = BOARD, **options: Any) -> None:
    """The film is refused before a clip is made, and every file is what it was."""
    (folder / "film.yaml").write_text(text)
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(VideoGenerationError, match=saying) as caught:
        make(folder, text, **options)
    assert caught.value.code == code
    assert not list((folder / ".reel" / "clips").glob("*.mp4"))
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


OVERWRITE: dict[str, Any] = {"settings": {"if_exists": "overwrite"}}


@pytest.mark.parametrize("link", ["itself", "hard link", "symbolic link"])
def test_a_film_is_not_written_over_its_sound(folder: Path, link: str) -> None:
    sound = folder / ("film.mp4" if link == "itself" else "music.mp3")
    sound.write_bytes(b"music")
    if link == "hard link":
        os.link(sound, folder / "film.mp4")
    elif link == "symbolic link":
        (folder / "film.mp4").symlink_to(sound)
    refused(
        folder,
        "INPUT",
        "the film would overwrite the sound",
        BOARD + f"audio: {{file: {sound.name}}}\n",
        **OVERWRITE,
    )


@pytest.mark.parametrize(("name", "what"), [("film.sheet.png", "its sheet"), ("film.reel.json", "its manifest")])
def test_a_film_does_not_write_its_companions_over_a_picture(folder: Path, name: str, what: str) -> None:
    shutil.copy(folder / "a.png", folder / name)
    text = BOARD.replace("image: a.png, last_image", f"image: {name}, last_image")
    refused(folder, "INPUT", f"{what} would overwrite image of shot five", text, **OVERWRITE)


def test_a_film_is_not_written_over_its_storyboard(folder: Path) -> None:
    (folder / "film.yaml").rename(folder / "film.mp4")
    order = FilmOrder(
        load_storyboard(folder / "film.mp4"),
        draft_settings().evolve(if_exists="overwrite"),
        folder / "film.mp4",
        folder / "film.mp4",
    )
    with pytest.raises(VideoGenerationError, match="overwrite the storyboard"):
        film(order)
    assert (folder / "film.mp4").read_text() == BOARD


def _folder(path: Path) -> None:
    path.mkdir()


def _picture(path: Path) -> None:
    path.write_bytes(b"the user's picture")


def _dangling(path: Path) -> None:
    path.symlink_to(path.with_name("nothing"))


@pytest.mark.parametrize("leave", [_folder, _picture, _dangling])
@pytest.mark.parametrize("name", ["film.sheet.png", "film.reel.json", "film.mp4"])
def test_what_the_user_has_under_a_name_of_the_film_stays(
    folder: Path, name: str, leave: Callable[[Path], None]
) -> None:
    leave(folder / name)
    with pytest.raises(VideoGenerationError) as caught:
        make(folder)
    assert caught.value.code in ("EXISTS", "INPUT", "PERM")
    assert name in caught.value.message
    assert not list((folder / ".reel").glob("clips/*.mp4"))
    assert os.path.lexists(folder / name)


def test_a_folder_under_the_name_of_the_sheet_is_reported_even_with_overwrite(folder: Path) -> None:
    (folder / "film.sheet.png").mkdir()
    refused(folder, "INPUT", "is a folder", **OVERWRITE)


def test_with_overwrite_a_picture_under_the_name_of_the_sheet_is_replaced(folder: Path) -> None:
    (folder / "film.sheet.png").write_bytes(b"mine")
    result, _ = make(folder, **OVERWRITE)
    assert result.sheet.read_bytes().startswith(b"\x89PNG")


def test_a_changed_sheet_is_the_users_and_the_films_own_is_replaced(folder: Path) -> None:
    result, _ = make(folder)
    own = result.sheet.read_bytes()
    make(folder, BOARD.replace("dissolve 3", "dissolve 2"))
    assert result.sheet.read_bytes() != own
    result.sheet.write_bytes(own + b"annotated")
    with pytest.raises(VideoGenerationError, match="was changed since it was drawn"):
        make(folder)
    assert result.sheet.read_bytes() == own + b"annotated"


def test_a_sheet_whose_film_was_never_published_is_our_own(folder: Path) -> None:
    result, _ = make(folder)
    result.output.unlink()
    result.manifest.unlink()
    assert make(folder)[0].sheet.exists()


# ------------------------------------------------------------------------------------------------ another storyboard


def other(folder: Path, name: str = "other.yaml", **settings: Any) -> FilmOrder:
    (folder / name).write_text(BOARD.replace("pan left", "pan right"))
    return FilmOrder(
        load_storyboard(folder / name), draft_settings().evolve(**settings), folder / "film.mp4", folder / name
    )


def test_a_second_storyboard_does_not_replace_the_film_of_the_first(folder: Path) -> None:
    make(folder)
    before = digest(folder)
    with pytest.raises(VideoGenerationError, match=r"is the film of another storyboard, .*film\.yaml") as caught:
        film(other(folder))
    assert caught.value.code == "EXISTS"
    assert digest(folder) == before
    film(other(folder, if_exists="overwrite"))
    assert digest(folder) != before


def test_a_renamed_storyboard_is_the_same_one_and_so_is_a_moved_project(folder: Path) -> None:
    make(folder)
    (folder / "film.yaml").rename(folder / "story.yaml")
    film(other(folder, "story.yaml"))
    moved = folder.rename(folder.with_name("moved"))
    assert film(other(moved, "story.yaml")).unchanged


def test_a_storyboard_of_a_program_does_not_replace_the_film_of_a_file(folder: Path) -> None:
    make(folder)
    board = load_storyboard(folder / "film.yaml")
    with pytest.raises(VideoGenerationError, match="another storyboard"):
        film(FilmOrder(board, draft_settings(), folder / "film.mp4"))
    one = FilmOrder(board, draft_settings(), folder / "other.mp4")
    film(one)
    assert film(one).unchanged


def test_with_if_exists_rename_a_film_goes_beside_the_existing_one_and_is_found_again(folder: Path) -> None:
    for name in ("film.mp4", "film.sheet.png"):
        (folder / name).write_bytes(b"mine")
    result, _ = make(folder, settings={"if_exists": "rename"})
    assert result.output.name == "film-2.mp4"
    assert make(folder, settings={"if_exists": "rename"})[0].unchanged
    refused_code = pytest.raises(VideoGenerationError, match="if_exists: skip is for single clips")
    with refused_code:
        make(folder, settings={"if_exists": "skip"})


# ------------------------------------------------------------------------------------------------ other commands


def test_films_whose_names_differ_in_case_have_manifests_sheets_and_records_of_their_own(folder: Path) -> None:
    make(folder)
    upper = other(folder)
    result = film(FilmOrder(upper.board, draft_settings(), folder / "film.MP4", upper.source))
    assert result.manifest.name == "film.MP4.reel.json"
    assert result.sheet.name == "film.MP4.sheet.png"
    assert make(folder)[0].unchanged


def test_the_manifest_of_an_older_version_is_found_if_it_names_the_film(tmp_path: Path) -> None:
    (tmp_path / "clip.reel.json").write_text(json.dumps({"output": {"path": "clip.MP4"}}))
    assert manifest_of(tmp_path / "clip.MP4") == tmp_path / "clip.reel.json"
    (tmp_path / "clip.reel.json").write_text(json.dumps({"output": {"path": "clip.mp4"}}))
    assert manifest_of(tmp_path / "clip.MP4") == manifest_path(tmp_path / "clip.MP4") == tmp_path / "clip.MP4.reel.json"


@pytest.mark.parametrize("link", ["symbolic link", "hard link"])
@pytest.mark.parametrize("role", ["image", "--depth", "--last-image"])
def test_a_clip_is_not_written_over_one_of_its_pictures(
    folder: Path, capsys: pytest.CaptureFixture[str], role: str, link: str
) -> None:
    output = folder / "clip.mp4"
    output.symlink_to(folder / "b.png") if link == "symbolic link" else os.link(folder / "b.png", output)
    picture = folder / ("b.png" if role == "image" else "a.png")
    more = [] if role == "image" else [role, str(folder / "b.png")]
    argv = [str(picture), "push in", "-o", str(output), "--generator", "draft", "--overwrite", *more]
    for command in ("plan", "generate"):
        assert main([command, *argv]) == 10
        told = capsys.readouterr()
        assert "would overwrite the" in told.out + told.err
    assert (folder / "b.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_under_the_name_of_the_manifest_is_reported_before_a_clip_is_made(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "clip.reel.json").mkdir()
    argv = [str(folder / "a.png"), "push in", "-o", str(folder / "clip.mp4"), "--generator", "draft", "--overwrite"]
    assert main(["generate", *argv]) == 32
    assert "is a folder, and the manifest needs its name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "more", "code", "saying"),
    [
        ("film.mp4", ["--overwrite"], "INPUT", "overwrite its own video"),
        ("link.png", ["--overwrite"], "INPUT", "overwrite its own video"),
        ("a.png", [], "EXISTS", "exists already"),
        ("dangling.png", [], "EXISTS", "exists already"),
        ("nodir/x.png", [], "INPUT", "nodir does not exist"),
        ("folder.png", ["--overwrite"], "INPUT", "is a folder"),
        ("sheet.jpg", [], "INPUT", "does not end in .png"),
        ("film.mp4/x.png", [], "INPUT", "is a file"),
        ("x" * 300 + ".png", [], "INPUT", "too long"),
    ],
)
def test_a_contact_sheet_goes_where_nothing_is_lost(
    made: Path, capsys: pytest.CaptureFixture[str], target: str, more: list[str], code: str, saying: str
) -> None:
    (made / "link.png").symlink_to(made / "film.mp4")
    (made / "dangling.png").symlink_to(made / "nothing")
    (made / "folder.png").mkdir()
    before, picture = digest(made), (made / "a.png").read_bytes()
    assert main(["contact-sheet", str(made / "film.mp4"), "-o", str(made / target), *more]) != 0
    told = capsys.readouterr().err
    assert code in told
    assert saying in told
    assert (digest(made), (made / "a.png").read_bytes()) == (before, picture)


def test_what_does_not_exist_is_no_input(tmp_path: Path) -> None:
    refuse_inputs({"the film": tmp_path / "film.mp4"}, {"the sound": tmp_path / "film.mp4", "nothing": None})
