"""Makes docs/terminal.svg: a recording of real `reel` commands in a terminal of 80 columns, as an animated SVG.

Each command runs in a pseudo-terminal. `Screen` understands the few control sequences that `rich` writes. Every screen
becomes a picture of the animation. The picture shows the folder of the recording as `~/films`, and plays the recording
in half a minute, however long the commands took.

    .venv/bin/python tools/terminal.py
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import shutil
import struct
import sys
import tempfile
import termios
import time
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PICTURE = REPOSITORY / "docs" / "terminal.svg"
COLUMNS, ROWS = 80, 20
CELL_WIDTH, CELL_HEIGHT, MARGIN = 8.4, 18, 14
LONGEST_WAIT_S, LAST_WAIT_S, SHORTEST_WAIT_S = 0.8, 15.0, 0.1
PLAYED_IN_S = 30.0
COMMANDS = (
    'reel generate examples/americas.jpg "push in" -o clip.mp4 --generator draft',
    "reel film examples/film.yaml -o film.mp4 --draft",
    "reel film examples/film.yaml -o film.mp4 --draft   # again: nothing changed",
)
BASIC = ("#282a36", "#ff5555", "#50fa7b", "#f1fa8c", "#6c9ef8", "#ff79c6", "#8be9fd", "#e6e6e6")
PLAIN = "fill:#e6e6e6"
FONT = "text{font:14px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;white-space:pre}"

Line = tuple[tuple[str, str], ...]
"""Pieces of text, each with its style."""


@dataclass
class Screen:
    """The last lines of a terminal: text, carriage returns, cursor up, cleared lines and colours."""

    lines: list[list[tuple[str, str]]] = field(default_factory=lambda: [[]])
    row: int = 0
    column: int = 0
    style: str = PLAIN

    def write(self, text: str) -> None:
        for piece in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|[\s\S]", text):
            if piece.startswith("\x1b["):
                self._control(piece[2:-1], piece[-1])
            elif piece == "\r":
                self.column = 0
            elif piece == "\n":
                self._next_line()
            else:
                self._put(piece)

    def _put(self, character: str) -> None:
        if self.column == COLUMNS:
            self._next_line()
            self.column = 0
        line = self.lines[self.row]
        line.extend([(" ", PLAIN)] * (self.column + 1 - len(line)))
        line[self.column] = (character, self.style)
        self.column += 1

    def _next_line(self) -> None:
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append([])

    def _control(self, numbers: str, letter: str) -> None:
        if letter == "A":
            self.row = max(0, self.row - int(numbers or 1))
        elif letter == "K":
            self.lines[self.row] = [] if numbers == "2" else self.lines[self.row][: self.column]
        elif letter == "m":
            self.style = _style(numbers)

    def shown(self) -> tuple[Line, ...]:
        """The lines that a terminal of `ROWS` rows would show, as runs of one style."""
        return tuple(_runs(line) for line in self.lines[-ROWS:])


def _style(numbers: str) -> str:
    codes = [int(code) for code in numbers.split(";") if code] or [0]
    if codes[:2] == [38, 5]:
        return f"fill:{_palette(codes[2])}"
    words = {0: PLAIN, 1: f"{PLAIN};font-weight:bold", 2: "fill:#8a8a8a", 3: f"{PLAIN};font-style:italic"}
    return words.get(codes[0], f"fill:{BASIC[codes[0] - 30]}" if 30 <= codes[0] < 38 else PLAIN)


def _palette(number: int) -> str:
    """A colour of the 256 that terminals have."""
    if number < 16:
        return BASIC[number % 8]
    if number >= 232:
        return f"#{8 + 10 * (number - 232):02x}" + f"{8 + 10 * (number - 232):02x}" * 2
    steps = (number - 16) // 36, (number - 16) // 6 % 6, (number - 16) % 6
    return "#" + "".join(f"{55 + 40 * step if step else 0:02x}" for step in steps)


def _runs(line: list[tuple[str, str]]) -> Line:
    runs: list[tuple[str, str]] = []
    for character, style in line:
        if runs and runs[-1][1] == style:
            runs[-1] = (runs[-1][0] + character, style)
        else:
            runs.append((character, style))
    return tuple(runs)


@dataclass
class Recording:
    """Screens, and how long each is shown."""

    screen: Screen = field(default_factory=Screen)
    screens: list[tuple[tuple[Line, ...], float]] = field(default_factory=list)

    def add(self, seconds: float) -> None:
        shown = self.screen.shown()
        if self.screens and self.screens[-1][0] == shown:
            self.screens[-1] = (shown, self.screens[-1][1] + seconds)
        else:
            self.screens.append((shown, seconds))

    def type(self, command: str) -> None:
        self.screen.write("\x1b[32m$ \x1b[0m")
        for word in re.findall(r"\S+\s*", command):
            self.add(SHORTEST_WAIT_S)
            self.screen.write(word)
        self.add(2 * SHORTEST_WAIT_S)
        self.screen.write("\r\n")

    def run(self, command: str, folder: Path) -> None:
        """Run a command in a pseudo-terminal and keep what it writes."""
        child, terminal = pty.fork()
        if child == 0:
            os.chdir(folder)
            words = shlex.split(command, comments=True)[1:]
            os.execve(sys.executable, [sys.executable, "-m", "reelwright", *words], _environment(folder))
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        before, rest = time.monotonic(), ""
        while text := _read(terminal):
            now = time.monotonic()
            if now - before >= SHORTEST_WAIT_S:
                self.add(min(now - before, LONGEST_WAIT_S))
                before = now
            whole, rest = _whole(rest + text)
            self.screen.write(whole.replace(str(folder), "~/films"))
        os.close(terminal)
        _, status = os.waitpid(child, 0)
        if status:
            raise SystemExit(f"{command} ended with {os.waitstatus_to_exitcode(status)}")


def _whole(text: str) -> tuple[str, str]:
    """Complete text, and the incomplete control sequence at its end."""
    end = re.search(r"(\x1b\[?[?0-9;]*)?\Z", text)
    start = end.start() if end else len(text)
    return text[:start], text[start:]


def _environment(folder: Path) -> dict[str, str]:
    return {"HOME": str(folder), "PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8"}


def _read(terminal: int) -> str:
    data = b""
    while True:
        try:
            data += (more := os.read(terminal, 65536))
        except OSError:  # Linux raises it at the end of a pseudo-terminal
            return data.decode(errors="replace")
        try:
            return data.decode() if more else ""
        except UnicodeDecodeError:
            continue


def hastened(screens: list[tuple[tuple[Line, ...], float]]) -> list[tuple[tuple[Line, ...], float]]:
    """The same screens in `PLAYED_IN_S`; a screen that is too short to see gives its time to the next one."""
    factor = PLAYED_IN_S / sum(seconds for _, seconds in screens)
    kept: list[tuple[tuple[Line, ...], float]] = []
    waiting = 0.0
    for shown, seconds in screens:
        waiting += seconds * factor
        if waiting >= SHORTEST_WAIT_S:
            kept.append((shown, waiting))
            waiting = 0.0
    return kept


def svg(screens: list[tuple[tuple[Line, ...], float]]) -> str:
    """An SVG of the screens one below the other, moved past a window; without animation it shows the last one."""
    width, height = COLUMNS * CELL_WIDTH + 2 * MARGIN, ROWS * CELL_HEIGHT + 2 * MARGIN
    total = sum(seconds for _, seconds in screens)
    names: dict[Line, str] = {}
    stops, frames, at = [], [], 0.0
    for index, (lines, seconds) in enumerate(screens):
        stops.append(f"{100 * at / total:.3f}%{{transform:translateY(-{index * height:.0f}px)}}")
        at += seconds
        uses = [
            f'<use href="#{names.setdefault(line, f"l{len(names)}")}" y="{row * CELL_HEIGHT}"/>'
            for row, line in enumerate(lines)
            if any(text.strip() for text, _ in line)
        ]
        frames.append(f'<g transform="translate({MARGIN} {index * height + MARGIN:.0f})">{"".join(uses)}</g>')
    last = f"-{(len(screens) - 1) * height:.0f}px"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}">',
            "<title>reel makes a clip and a film in a terminal</title>",
            f"<style>{FONT}#film{{transform:translateY({last});animation:play {total:.2f}s step-end infinite}}",
            f"@keyframes play{{{''.join(stops)}}}</style>",
            f'<rect width="{width:.0f}" height="{height:.0f}" rx="8" fill="#1e1f29"/>',
            f"<defs>{''.join(_line(line, name) for line, name in names.items())}</defs>",
            f'<g id="film">{"".join(frames)}</g>',
            "</svg>\n",
        ]
    )


def _line(line: Line, name: str) -> str:
    parts, column = [], 0
    for text, style in line:
        if text.strip():
            place = f'x="{column * CELL_WIDTH:.1f}" y="14" textLength="{len(text) * CELL_WIDTH:.1f}"'
            parts.append(f'<text {place} xml:space="preserve" style="{style}">{escape(text)}</text>')
        column += len(text)
    return f'<g id="{name}">{"".join(parts)}</g>'


def main() -> None:
    recording = Recording()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(REPOSITORY / "examples", folder / "examples")
        for command in COMMANDS:
            recording.type(command)
            recording.run(command, folder)
            recording.add(1.5)
    recording.screen.write("\x1b[32m$ \x1b[0m")
    recording.add(LAST_WAIT_S)
    screens = hastened(recording.screens)
    PICTURE.write_text(svg(screens), "utf-8")
    print(f"{PICTURE}: {len(screens)} screens, {PICTURE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
