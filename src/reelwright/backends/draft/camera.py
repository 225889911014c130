"""Camera words: which moves a prompt (or ``--camera``) asks for, and how fast.

This reads words only; how a move is carried out is the engine's business (`engines.draft`). It does not
understand the prompt: a subject that should act cannot act in a moving still, and the caller says so.

    >>> read_prompt("A quiet harbour. The camera pans slowly to the left, handheld.")
    Camera(moves=('pan_left', 'handheld'), speed=0.55)
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

SLOW, NORMAL, FAST = 0.55, 1.0, 1.6
#: Moves that cannot both be made, and static, which excludes every other one.
_OPPOSITES = (
    ("push_in", "pull_out"),
    ("pan_left", "pan_right"),
    ("tilt_up", "tilt_down"),
    ("orbit_left", "orbit_right"),
    ("roll_left", "roll_right"),
)
MOVES = (*(move for pair in _OPPOSITES for move in pair), "handheld", "static")
_ALIASES = {
    "zoom_in": "push_in",
    "dolly_in": "push_in",
    "zoom_out": "pull_out",
    "pull_back": "pull_out",
    "dolly_out": "pull_out",
    "dolly_back": "pull_out",
    "crane_up": "tilt_up",
    "crane_down": "tilt_down",
    "truck_left": "pan_left",
    "truck_right": "pan_right",
    "orbit": "orbit_left",
    "arc": "orbit_left",
    "roll": "roll_right",
    "hand_held": "handheld",
    "locked": "static",
    "still": "static",
}
_SPEEDS = {
    "slow": SLOW, "slowly": SLOW, "gentle": SLOW, "gently": SLOW, "subtle": SLOW,
    "normal": NORMAL,
    "fast": FAST, "quick": FAST, "quickly": FAST, "rapid": FAST, "rapidly": FAST, "swiftly": FAST,
}  # fmt: skip
# Between a verb and its direction only such words may stand: "pans slowly over to the left" is a camera move,
# "she tilts her head up" is not.
_FILL = r"(?:[\s-]+(?:\w+ly|slow|to|the|a|bit|little|over|across|around|further|very|from)\b){0,4}[\s-]+"
_CAMERA = r"\bcamera(?:\s+\w+ly|\s+is|\s+then){0,2}\s+"
_PUSH = rf"(?:\b(?:push(?:es|ing)?|zoom(?:s|ing)?|dolly|dollies|dollying)|{_CAMERA}(?:moves?|moving|glides?))"
_PULL = rf"(?:\b(?:pull(?:s|ing)?|zoom(?:s|ing)?|dolly|dollies|dollying)|{_CAMERA}(?:moves?|moving|glides?))"
_PAN = (
    r"(?:(?<!frying )\bpan(?:s|ning)?|\btruck(?:s|ing)"
    rf"|{_CAMERA}(?:moves?|moving|slid(?:es|ing)|tracks?|glides?))"
)
_TILT = (
    r"(?:\b(?:tilt(?:s|ing)?|cran(?:es?|ing)|pedestals?|pan(?:s|ning)?)"
    rf"|{_CAMERA}(?:moves?|moving|looks?))"
)
_IN = r"(?:in|into|closer|forwards?|towards?|inwards?)\b"
_OUT = r"(?:out|back|away|backwards?|outwards?)\b"
_ORBIT = (
    r"\b(?:orbit(?:s|ing)?|arc(?:s|ing)?\s+(?:shot|around))\b"
    rf"|{_CAMERA}(?:circl|revolv|rotat)(?:es|ing)\s+around\b"
)
_WORDS = (
    ("push_in", rf"{_PUSH}{_FILL}{_IN}"),
    ("push_in", rf"(?:\bcamera\s+zooms?|\bzoom(?:s|ing)?(?:\s+shot)?)\b(?!{_FILL}(?:{_IN}|{_OUT}))"),
    ("pull_out", rf"{_PULL}{_FILL}{_OUT}"),
    ("pan_left", rf"{_PAN}{_FILL}left(?:wards?)?\b"),
    ("pan_right", rf"{_PAN}{_FILL}right(?:wards?)?\b"),
    ("pan_right", rf"\b(?:camera\s+pans?|panning\s+shot|slow\s+pan)\b(?!{_FILL}(?:left|right|up|down))"),
    ("tilt_up", rf"{_TILT}{_FILL}(?:up|upwards?|skywards?)\b|{_CAMERA}rises\b"),
    ("tilt_down", rf"{_TILT}{_FILL}(?:down|downwards?)\b"),
    ("orbit_right", rf"(?:{_ORBIT}){_FILL}right\b"),
    ("orbit_left", rf"(?:{_ORBIT})(?!{_FILL}right\b)"),
    ("roll_left", r"\bcamera\s+rolls?\s+(?:left|counter-?clockwise)\b"),
    ("roll_right", r"\bcamera\s+rolls?\b(?!\s+(?:left|counter-?clockwise))|\bdutch\s+(?:roll|tilt|angle)\b"),
    ("handheld", r"\bhand[\s-]?held\b|\bshaky\s+cam(?:era)?\b"),
    (
        "static",
        r"\b(?:static|locked|locked[\s-]off|fixed|stationary|motionless)\s+(?:camera|shot|frame|view|tripod)\b",
    ),
    ("static", rf"{_CAMERA}(?:stays\s+|remains\s+)?(?:static|locked(?:[\s-]off)?|fixed|still|motionless)\b"),
    ("static", r"\b(?:no|without)\s+(?:any\s+)?camera\s+(?:move(?:ment)?s?|motion)\b|\blocked[\s-]off\b"),
    (
        "static",
        r"\b(?:tripod\s+shot|(?:on|from)\s+a\s+tripod)\b|(?:^|[,;.])\s*(?:static|locked)\s*(?:[,;.]|$)",
    ),
)
_PATTERNS = tuple((move, re.compile(words, re.IGNORECASE)) for move, words in _WORDS)
_NEGATED = re.compile(r"\b(?:no|not|never|without|don't|doesn't)\s+(?:\w+\s+){0,2}$", re.IGNORECASE)
_CLAUSE = re.compile(r"[^.,;:!?\n]*")


@dataclass(frozen=True)
class Camera:
    """Moves in the order in which they were asked for, and one speed for all (1 is normal)."""

    moves: tuple[str, ...]
    speed: float


def read_prompt(prompt: str) -> Camera:
    """The camera moves a prompt names, earliest first; a slow push-in when it names none.

    Of two opposite moves the earlier one is kept, and "static camera" wins over everything.
    """
    found: dict[str, int] = {}
    for move, pattern in _PATTERNS:
        for match in pattern.finditer(prompt):
            if move == "static" or not _NEGATED.search(prompt[max(0, match.start() - 40) : match.start()]):
                found[move] = min(match.start(), found.get(move, match.start()))
    if not found:
        return Camera(("push_in",), SLOW)
    if "static" in found:
        return Camera(("static",), NORMAL)
    ordered = sorted(found, key=lambda move: found[move])
    moves = tuple(move for place, move in enumerate(ordered) if _opposite(move) not in ordered[:place])
    return Camera(moves, _speed_near(prompt, found[moves[0]]))


def parse_camera(text: str) -> Camera:
    """The moves of an explicit ``--camera``, such as ``push_in``, ``pan_left slow`` or ``tilt up +
    handheld``.

    Raises:
        ValueError: an unknown word (the message names the nearest known one), two opposite moves, or no move.
    """
    moves: list[str] = []
    speed = NORMAL
    for word in _join_pairs(re.split(r"[\s,;+]+", text.strip().lower().replace("-", "_"))):
        if word in _SPEEDS:
            speed = _SPEEDS[word]
            continue
        move = _ALIASES.get(word, word)
        if move not in MOVES:
            known = [*MOVES, *_ALIASES, *_SPEEDS]
            nearest = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
            raise ValueError(f"unknown camera word {word!r}" + (f"; did you mean {nearest[0]!r}?" if nearest else ""))
        if move not in moves:
            moves.append(move)
    if not moves:
        raise ValueError("it names no camera move")
    for move in moves:
        if _opposite(move) in moves:
            raise ValueError(f"{move!r} and {_opposite(move)!r} cannot be made together")
    return Camera(("static",), NORMAL) if "static" in moves else Camera(tuple(moves), speed)


def _join_pairs(words: list[str]) -> list[str]:
    """``["pan", "left"]`` as ``["pan_left"]``: people write both."""
    joined: list[str] = []
    for word in filter(None, words):
        pair = f"{joined[-1]}_{word}" if joined else ""
        if pair in MOVES or pair in _ALIASES:
            joined[-1] = pair
        else:
            joined.append(word)
    return joined


def _opposite(move: str) -> str | None:
    for one, other in _OPPOSITES:
        if move in (one, other):
            return other if move == one else one
    return None


def _speed_near(prompt: str, place: int) -> float:
    """The speed word of the clause of the first move ("a fast car, slow push in" is slow); normal without
    one."""
    for clause in _CLAUSE.finditer(prompt):
        if clause.start() <= place <= clause.end():
            for word in re.findall(r"[a-z]+", clause[0].lower()):
                if word in _SPEEDS:
                    return _SPEEDS[word]
    return NORMAL
