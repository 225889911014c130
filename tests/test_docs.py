"""What the documents say is true: commands parse, drafts run, every failure is explained, links lead somewhere."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tools import cards
from tools import settings as settings_table

from reelwright import Settings, load_settings
from reelwright.backends.diffusers.settings import DiffusersSettings
from reelwright.backends.settings import FlatSettings
from reelwright.cli import build_parser
from reelwright.core.errors import Failure
from reelwright.installer import SetupOrder, configuration
from reelwright.installer.recipes import find_models, find_recipe
from tests.conftest import REPOSITORY

RUN = "<!-- CI runs these commands. -->"
PAGES = sorted([REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *(REPOSITORY / "docs").rglob("*.md")])


def commands() -> Iterator[tuple[str, str]]:
    """Every ``reel …`` line of an indented or fenced block, with its page; an ellipsis stands for arguments."""
    for page in PAGES:
        text = page.read_text("utf-8").replace("\\\n", " ")
        for line in text.splitlines():
            match = re.match(r"^(?: {4}|\$ )?(reel [^#]*)", line)
            if match and (line.startswith((" ", "$")) or _fenced(text, line)) and "…" not in match[1]:
                yield page.name, match[1].strip()


def _fenced(text: str, line: str) -> bool:
    return text[: text.index(line)].count("```") % 2 == 1


def test_every_command_in_the_documents_is_one() -> None:
    wrong = []
    found = list(commands())
    for page, command in found:
        words = shlex.split(command.partition(" > ")[0])[1:]
        _, mistakes = build_parser().read([word.replace("IMAGE", "a.png").replace("PROMPT", "p") for word in words])
        wrong += [f"{page}: {command}: {mistake}" for mistake in mistakes]
    assert wrong == []
    assert len(found) > 20


def test_every_picture_that_a_command_reads_is_in_the_repository() -> None:
    read = [
        (page, word)
        for page, command in commands()
        for word in re.findall(r"(?:generate|plan|--last-image) (\S+\.(?:jpe?g|png|webp|heic|avif))\b", command)
    ]
    assert len(read) > 8
    assert [item for item in read if not (REPOSITORY / item[1]).exists()] == []


def runnable(page: Path) -> list[str]:
    """The `reel` lines of each block that has the mark `RUN` above it."""
    blocks = re.findall(rf"^{re.escape(RUN)}\n\n((?: {{4}}.*\n)+)", page.read_text("utf-8"), re.MULTILINE)
    return [line.strip() for block in blocks for line in block.splitlines() if line.startswith("    reel ")]


@pytest.mark.long
def test_the_commands_with_the_mark_really_run(tmp_path: Path) -> None:
    """The README first, the others in the same folder, where its film is."""
    pages = [REPOSITORY / "README.md", *(page for page in PAGES if page.name != "README.md")]
    lines = [line for page in pages for line in runnable(page)]
    assert len(lines) >= 10
    assert all(len(runnable(REPOSITORY / page)) > 0 for page in ("README.md", "docs/films.md", "docs/wan21.md"))
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples")
    story = tmp_path / "examples" / "film.yaml"
    story.write_text(story.read_text("utf-8").replace("1280x720", "640x360"), "utf-8")  # the same film, sooner
    for line in dict.fromkeys(line.partition("  ")[0].strip() for line in lines):
        argv = [sys.executable, "-m", "reelwright", *shlex.split(line, comments=True)[1:]]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (line, done.stderr)


def test_every_page_says_what_it_is() -> None:
    kinds = r"\*(?:Tutorial|How-to|Reference|Explanation)\.\*"
    pages = [REPOSITORY / "CONTRIBUTING.md", *(REPOSITORY / "docs").glob("*.md")]
    assert [page.name for page in pages if not re.search(kinds, page.read_text("utf-8")[:400])] == []


def test_the_python_of_the_readme_runs_beside_what_its_commands_made_before(tmp_path: Path) -> None:
    text = (REPOSITORY / "README.md").read_text("utf-8")
    program = re.search(r"^ {4}import reelwright\n(?: {4}.*\n)+", text, re.MULTILINE)
    outputs = re.findall(r"^ {4}reel (?:generate|film) .*-o (\S+)", text, re.MULTILINE)
    assert program
    assert len(outputs) == len(set(outputs)) >= 3
    for name in outputs:
        (tmp_path / name).touch()
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    code = textwrap.dedent(program[0])
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_failure_is_explained_with_its_exit_status() -> None:
    text = (REPOSITORY / "docs" / "troubleshooting.md").read_text("utf-8")
    for failure in Failure:
        if failure is not Failure.CANCELLED:
            assert f"### {failure.name} (exit status {failure.exit_status})" in text
    assert "### CANCELLED (exit status 129, 130 or 143)" in text


def test_every_failures_entry_has_its_four_parts() -> None:
    text = (REPOSITORY / "docs" / "troubleshooting.md").read_text("utf-8")
    entries = dict(re.findall(r"^### ([A-Z_]+) \([^)]*\)\n(.*?)(?=\n##|\Z)", text, re.MULTILINE | re.DOTALL))
    assert set(entries) == {failure.name for failure in Failure}
    for name, entry in entries.items():
        meaning, *parts = re.split(r"^- (?=\*\*)", entry, flags=re.MULTILINE)
        assert meaning.strip(), name
        assert [part.split("**")[1] for part in parts] == ["It shows", "Reelwright", "To do"], name


def test_the_readme_shows_every_command(reel: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    text = (REPOSITORY / "README.md").read_text("utf-8")
    names = re.search(r"\{(.*?)\}|COMMAND", build_parser().format_usage())
    assert names
    for line in reel("--help").stdout.splitlines():
        match = re.match(r"^ {4}([a-z-]+) {2,}", line)
        if match:
            assert f"`reel {match[1]}" in text, match[1]


@pytest.mark.parametrize("page", [cards.README, cards.ENGINE], ids=lambda page: page.name)
def test_the_tables_of_cards_are_current(page: Path) -> None:
    assert cards.updated(page) == page.read_text("utf-8"), "a plan or a model changed: run `make tree`"


def test_the_table_of_settings_is_current() -> None:
    page = (REPOSITORY / "docs" / "configuration.md").read_text("utf-8")
    assert settings_table.updated(page) == page, "a setting changed: run `make tree`"
    assert [key for key in Settings.model_fields if f"\n| `{key}` |" not in page] == []


#: Column of the table of three names -> the backend that writes the flags, and the stand-in of the script that takes them.
SCRIPTS = {2: ("wan21", "wan21"), 3: ("hunyuan", "hunyuan/older"), 4: ("hunyuan", "hunyuan/newer")}


def test_the_three_names_of_a_value_are_those_of_command_settings_and_scripts(
    reel: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    page = (REPOSITORY / "docs" / "configuration.md").read_text("utf-8")
    table = page.partition("## One value, three names\n")[2]
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in re.findall(r"^\|.*\|$", table, re.M)][2:]
    assert len(rows) > 12
    options = set(re.findall(r"--[\w-]+", reel("generate", "--help").stdout))
    assert {word for row in rows for word in re.findall(r"`(--[\w-]+)`", row[0])} <= options
    assert {word for row in rows for word in re.findall(r"`(\w+)`", row[1])} <= set(FlatSettings.model_fields)
    for column, (backend, stand_in) in SCRIPTS.items():
        written, taken = _text("src/reelwright/backends", backend), _text("tests/stand_ins", stand_in)
        for flag in (flag for row in rows for flag in re.findall(r"`(--[\w-]+)`", row[column])):
            assert re.search(flag[2:].replace("-", "[-_]"), written), (backend, flag)
            assert f'"{flag}"' in taken, (stand_in, flag)
    keys = {word for row in rows for word in re.findall(r"`(\w+)`", row[5])} - {"weights"}
    assert {word for word in keys if f'"{word}"' not in _text("src/reelwright/engines", "diffusers")} == set()


def _text(*folder: str) -> str:
    return "\n".join(path.read_text("utf-8") for path in sorted(REPOSITORY.joinpath(*folder).rglob("*.py")))


def test_the_pictures_of_the_readme_are_here_and_small() -> None:
    raw = "https://raw.githubusercontent.com/reelwright/reelwright/main/"
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (REPOSITORY / "README.md").read_text("utf-8"))
    files = [REPOSITORY / picture.removeprefix(raw) for picture in pictures]
    assert len(files) == 3
    assert [str(file) for file in files if not 0 < file.stat().st_size < 2_000_000] == []


def test_the_lines_of_the_readme_for_a_small_card_name_what_its_setup_made(tmp_path: Path) -> None:
    page = (REPOSITORY / "README.md").read_text("utf-8")
    added = re.findall(r"^ {4}echo '(.*)' >> ~/\.config/reelwright/config\.yaml$", page, re.MULTILINE)
    models = re.search(r"^ {4}reel setup wan2\.1 --models (\S+) --dir ~/wan$", page, re.MULTILINE)
    engine = re.search(r"^ {4}python3 -m venv (\S+) && \1/bin/pip install -r (\S+)$", page, re.MULTILINE)
    assert len(added) == 2
    assert models
    assert engine
    assert (REPOSITORY / engine[2]).exists()
    recipe = find_recipe("wan2.1")
    order = SetupOrder(recipe, find_models(recipe, models[1]), Path.home() / "wan", config=tmp_path / "config.yaml")
    configuration.write(order, {})
    with order.config.open("a") as file:  # type: ignore[union-attr]
        file.writelines(f"{line}\n" for line in added)
    settings = load_settings(order.config, environ={})
    own = settings.for_generator("diffusers")
    assert isinstance(own, DiffusersSettings)
    assert (settings.generator, own.wan2_dir, own.i2v_model_dir) == ("diffusers", order.checkout, own.weights)
    assert own.python == Path(engine[1]).expanduser() / "bin" / "python" != order.interpreter


def test_links_and_named_documents_exist() -> None:
    missing = []
    for page in PAGES:
        text = page.read_text("utf-8")
        links = [page.parent / target for target in re.findall(r"\]\((?!http)([^)#]+)\)", text)]
        named = [REPOSITORY / target for target in re.findall(r"`((?:docs|bench|examples|tests)/[\w./-]+)`", text)]
        missing += [f"{page.name}: {target}" for target in (*links, *named) if not target.exists()]
    assert missing == []


def test_extras_and_models_that_the_documents_name_exist() -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    assert set(re.findall(r"(?:reelwright|'\.)\[(\w+)\]", text)) <= set(extras)
    for models in re.findall(r"reel setup wan2\.1 .*--models ([\w.,-]+)", text):
        assert find_models(find_recipe("wan2.1"), models)


def test_settings_named_in_the_documents_exist() -> None:
    """A word in code quotes followed by a colon is a setting."""
    known = set(Settings.model_fields) | {"default_backend", "prompt"}
    found = [(page.name, key) for page in PAGES for key in re.findall(r"`([a-z][a-z0-9_]+): ", page.read_text("utf-8"))]
    assert [item for item in found if item[1] not in known] == []


def _codes_in_tests() -> dict[str, set[str]]:
    """Codes of faults in the names of tests, each with the files that have it."""
    found: dict[str, set[str]] = {}
    for path in (REPOSITORY / "tests").rglob("test_*.py"):
        for name in re.findall(r"^ *def (test_\w+)", path.read_text("utf-8"), re.MULTILINE):
            for code in re.findall(r"(?<=_)([a-z]\d\d)(?=_)", name):
                found.setdefault(code.upper(), set()).add(str(path.relative_to(REPOSITORY)))
    return found


def test_every_code_of_a_fault_in_a_tests_name_is_explained_and_every_explained_one_is_tested() -> None:
    text = (REPOSITORY / "docs" / "faults.md").read_text("utf-8")
    listed = dict(re.findall(r"^\| ([A-Z]\d\d) \|.*\| (\S+\.py) \|$", text, re.MULTILINE))
    tested = _codes_in_tests()
    assert sorted(listed) == sorted(tested)
    assert {code: file for code, file in listed.items() if file not in tested[code]} == {}


def test_every_failure_code_has_a_fault_whose_test_exists() -> None:
    text = (REPOSITORY / "docs" / "faults.md").read_text("utf-8")
    rows = re.findall(r"^\| ([A-Z_]+) \|.*\| (\S+\.py)::(test_\w+) \|$", text, re.MULTILINE)
    assert sorted(code for code, _, _ in rows) == sorted(failure.name for failure in Failure)
    missing = [(file, name) for _, file, name in rows if f"def {name}(" not in (REPOSITORY / file).read_text("utf-8")]
    assert missing == []


def test_links_within_a_page_lead_to_its_headings() -> None:
    wrong = []
    for page in PAGES:
        text = page.read_text("utf-8")
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        wrong += [f"{page.name}: #{link}" for link in re.findall(r"\]\(#([^)]+)\)", text) if link not in anchors]
    assert wrong == []


def test_every_module_that_the_documents_name_exists() -> None:
    """A path in code quotes that begins with a room is a file of the package."""
    source = REPOSITORY / "src" / "reelwright"
    rooms = "|".join(path.name for path in source.iterdir() if path.is_dir() and not path.name.startswith("_"))
    named = [
        (page.name, path)
        for page in PAGES
        if "decisions" not in page.parts
        for path in re.findall(rf"`((?:{rooms})/[\w./*]+\.py)`", page.read_text("utf-8"))
    ]
    assert len(named) > 40
    assert [item for item in named if not list(source.glob(item[1]))] == []


def test_every_function_that_the_architecture_names_is_in_its_file() -> None:
    """A name in code quotes right after a file, with or without brackets and a comma."""
    source = REPOSITORY / "src" / "reelwright"
    page = (REPOSITORY / "docs" / "architecture.md").read_text("utf-8")
    named = re.findall(r"`([\w/]+\.py)`,?\s\(?`(\w+(?:\.\w+)?)`", page)
    texts = {path: (source / path).read_text("utf-8") for path, _ in named if (source / path).exists()}
    assert len(named) > 30
    wrong = [
        (path, name)
        for path, name in named
        if not all(re.search(rf"\b(?:def|class) {part}\b", texts.get(path, "")) for part in name.split("."))
    ]
    assert wrong == []
