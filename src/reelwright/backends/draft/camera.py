"""The reader of camera words: it finds the moves that a prompt or ``--camera`` names, and their speed.

`engines.draft` carries the moves out. This module matches words and does not understand the prompt: a subject cannot
act in a moving still, and the caller says so.

    >>> read_prompt("A quiet harbour. The camera pans slowly to the left, handheld.")
    Camera(moves=('pan_left', 'handheld'), speed=0.55, named=True)
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ...core.errors import guess

SLOW, NORMAL, FAST = 0.55, 1.0, 1.6
#: Pairs of moves that exclude each other; ``static`` excludes every other move.
_OPPOSITES = (
    ("push_in", "pull_out"),
    ("pan_left", "pan_right"),
    ("tilt_up", "tilt_down"),
    ("orbit_left", "orbit_right"),
    ("roll_left", "roll_right"),
)
MOVES = (*(move for pair in _OPPOSITES for move in pair), "handheld", "static")
_ALIASES = {
    "zoom_in": "push_in", "dolly_in": "push_in", "zoom_out": "pull_out", "pull_back": "pull_out",
    "dolly_out": "pull_out", "dolly_back": "pull_out", "crane_up": "tilt_up", "crane_down": "tilt_down",
    "truck_left": "pan_left", "truck_right": "pan_right", "orbit": "orbit_left", "arc": "orbit_left",
    "roll": "roll_right", "hand_held": "handheld",
    **dict.fromkeys(("locked", "locked_off", "still", "hold", "fixed", "tripod", "none"), "static"),
}  # fmt: skip
_SPEEDS = {
    "slow": SLOW, "slowly": SLOW, "gentle": SLOW, "gently": SLOW, "subtle": SLOW,
    "normal": NORMAL,
    "fast": FAST, "quick": FAST, "quickly": FAST, "rapid": FAST, "rapidly": FAST, "swiftly": FAST,
}  # fmt: skip
# Words that may come between a verb and its direction: "pans slowly over to the left" is a camera move,
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
    r"\b(?:orbits?(?=\s*$|[\s]*[,;.:!?\n]|\s+(?:around|left|right|shot|slow|the\b))|orbiting(?=\s+(?:around|shot|left|right))"
    r"|arc(?:s|ing)?\s+(?:shot|around))\b"
    rf"|{_CAMERA}(?:(?:revolv|rotat)(?:es|ing)\s+around|circl(?:es|ing)|orbit(?:s|ing))\b"
)
_RIGHT = rf"(?:{_FILL}right\b|[^,;.:!?\n]{{1,60}}\bto\s+the\s+right\b)"
_ENDS = r"(?=\s*(?:$|[,;.:!?\n]))"
_WORDS = (
    ("push_in", rf"{_PUSH}{_FILL}{_IN}"),
    ("push_in", rf"\bcamera\s+zooms?\b(?!{_FILL}(?:{_IN}|{_OUT}))"),
    (
        "push_in",
        rf"\bzoom(?:s|ing)?(?:\s+shot)?\b(?:{_ENDS}|(?=\s+(?:on|onto|\w+ly|slow)\b(?!{_FILL}(?:{_IN}|{_OUT}))))",
    ),
    ("pull_out", rf"{_PULL}{_FILL}{_OUT}"),
    ("pan_left", rf"{_PAN}{_FILL}(?:right\s+to\s+(?:the\s+)?left|left(?:wards?)?(?!\s+to\s+(?:the\s+)?right))\b"),
    ("pan_right", rf"{_PAN}{_FILL}(?:left\s+to\s+(?:the\s+)?right|right(?:wards?)?(?!\s+to\s+(?:the\s+)?left))\b"),
    ("pan_right", rf"\b(?:camera\s+pans?|panning\s+shot|slow\s+pan)\b(?!{_FILL}(?:left|right|up|down))"),
    ("tilt_up", rf"{_TILT}{_FILL}(?:up|upwards?|skywards?)\b|{_CAMERA}rises\b"),
    ("tilt_down", rf"{_TILT}{_FILL}(?:down|downwards?)\b|{_CAMERA}(?:descends|lowers)\b"),
    ("orbit_right", rf"(?:{_ORBIT}){_RIGHT}"),
    ("orbit_left", rf"(?:{_ORBIT})(?!{_RIGHT})"),
    ("roll_left", r"\bcamera\s+rolls?\s+(?:left|counter-?clockwise)\b"),
    (
        "roll_right",
        r"\bcamera\s+(?:rolls\b(?!\s+(?:left|counter-?clockwise))|roll\s+(?:right|clockwise)\b)|\bdutch\s+(?:roll|tilt|angle)\b",
    ),
    (
        "handheld",
        rf"\bhand[\s-]?held\b(?:{_ENDS}|(?=\s+(?:camera|cam|shot|footage|feel|look|style|shake|video|motion|move)))",
    ),
    ("handheld", rf"\bshaky\s+cam(?:era)?\b|\bcamera\s+shake\b|{_CAMERA}shakes\b"),
)
_NO_MOVE = r"(?:move(?:ment)?s?|motion|moving)"
_STATIC = re.compile(
    "|".join((
        (r"\b(?:static|still|locked|locked[\s-]off|locked[\s-]down|fixed|stationary|motionless|unmoving|immobile)"
        r"\s+(?:camera|shot|frame|framing|view|tripod)\b"),
        (rf"{_CAMERA}(?:stays\s+|remains\s+|stands\s+|perfectly\s+|completely\s+)*"
        r"(?:static|locked(?:[\s-]off)?|fixed|still|motionless|stationary)\b"),
        rf"{_CAMERA}(?:holds?|stops?|does\s+not\s+move|doesn't\s+move|never\s+moves|do\s+not\s+move|don't\s+move)\b",
        r"\b(?:keep|hold|leave)(?:s|ing)?\s+(?:the\s+)?(?:camera|shot|frame|view)\b",
        r"\b(?:do\s+not|don't|never|without)\s+mov(?:e|ing)\s+the\s+camera\b",
        rf"\b(?:no|without|zero)\s+(?:any\s+)?(?:camera\s+)?{_NO_MOVE}(?:\s+of\s+the\s+camera)?{_ENDS}",
        rf"\b(?:no|without|zero)\s+(?:any\s+)?camera\s+{_NO_MOVE}\b|\blocked[\s-]off\b",
        r"\b(?:camera|shot|frame|view)\s+(?:is\s+not|isn't|never|does\s+not|doesn't)\s+mov(?:es?|ing)\b",
        r"\b(?:shot|frame|view)\s+(?:holds?|(?:is|stays|remains)\s+(?:\w+ly\s+)?(?:static|still|fixed|locked))\b",
        r"\bfreeze[\s-]frame\b",
        r"\b(?:tripod\s+shot|(?:on|from)\s+a\s+tripod)\b",
        # These words alone in a clause; "hold" may name what the camera holds on.
        rf"(?:^|[,;.:!?\n])\s*(?:(?:and|then|just|completely|perfectly|totally)\s+)*(?:static|locked|still|steady|tripod|freeze|(?:hold|keep|stay)\s+still){_ENDS}",
        (rf"(?:^|[,;.:!?\n]|\bthen|\band)\s*(?:a\s+)?(?:(?:slow|long|short|steady|just)\s+)*hold(?:s|ing)?"
        rf"(?:{_ENDS}|\s+(?:still|steady|there|here|for\s+\w+\s+\w*seconds?|on(?!\s+(?:to|tight)\b))\b)"),
    )),
    re.IGNORECASE,
)  # fmt: skip
# The subject decides whether a verb is about the camera: only plain words may come between the start of its clause (or
# the word "camera") and the verb. "The train pulls out of the station" has another subject.
_SUBJECT = re.compile(r"\b(?:camera|lens|view|shot|we|drone)\b", re.IGNORECASE)
_CONNECTION = re.compile(r"\b(?:and|then|with|while|followed\s+by|into|before|as)\b", re.IGNORECASE)
_PLAIN_WORDS = frozenset((
    "a", "an", "the", "very", "slow", "gentle", "subtle", "smooth", "quick", "fast", "rapid", "swift", "steady",
    "dramatic", "cinematic", "continuous", "long", "short", "slight", "soft", "wide", "whip", "tight", "then", "and",
    "with", "by", "is", "now", "next", "finally", "please", "start", "end", "begin", "begins", "starts", "ends", "of",
    "shot", "move", "movement", "aerial", "tracking", "drone", "camera", "hand", "held", "handheld", "push", "pushes",
    "pushing", "pull", "pulls", "pulling", "zoom", "zooms", "zooming", "dolly", "pan", "pans", "panning", "tilt",
    "tilts", "tilting", "crane", "cranes", "orbit", "orbits", "truck", "trucks", "rise", "rises", "roll", "rolls",
    "moves", "moving", "in", "out", "up", "down", "left", "right", "back", "forward", "forwards", "backwards",
    "closer", "away", "to", "over", "across", "around", "bit", "little", "further",
))  # fmt: skip
_THINGS = re.compile(
    r"(?:\b(?:a|an|the|his|her|my|old|new)\s+)?(?:dolly|truck|crane|pan|pedestal)s?\s+\w+$", re.IGNORECASE
)
_PLACES = re.compile(
    r"\s+(?:(?:in|at|behind|by|for|near|under|beside|the|a|an|his|her|my|our|their|its)\b)", re.IGNORECASE
)
_PATTERNS = tuple((move, re.compile(words, re.IGNORECASE)) for move, words in _WORDS)
_NEGATED = re.compile(r"\b(?:no|not|never|without|don't|doesn't)\s+(?:\w+\s+){0,2}$", re.IGNORECASE)
_LOOK_BACK = 200
_CLAUSE = re.compile(r"[^.,;:!?\n]*")


@dataclass(frozen=True)
class Camera:
    """Moves in the order of the text, and one speed for all of them (1 is normal).

    ``named`` is false if the draft chose them itself, for a prompt without camera words.
    """

    moves: tuple[str, ...]
    speed: float
    named: bool = field(default=True, compare=False)


def read_prompt(prompt: str) -> Camera:
    """The camera moves that a prompt names, earliest first; a slow push-in (not `Camera.named`) if it names none.

    The earlier of two opposite moves is kept. "Static camera" overrides every move. A prompt that only excludes moves
    is static.
    """
    if _STATIC.search(prompt):
        return Camera(("static",), NORMAL)
    found: dict[str, int] = {}
    refused = False
    for move, pattern in _PATTERNS:
        for match in pattern.finditer(prompt):
            if _NEGATED.search(prompt[max(0, match.start() - 40) : match.start()]):
                refused = True
            elif _is_the_cameras(prompt, match):
                found[move] = min(match.start(), found.get(move, match.start()))
    if not found:
        return Camera(("static",), NORMAL) if refused else Camera(("push_in",), SLOW, named=False)
    ordered = sorted(found, key=lambda move: found[move])
    moves = tuple(move for place, move in enumerate(ordered) if _opposite(move) not in ordered[:place])
    return Camera(moves, _speed_near(prompt, found[moves[0]]))


def _is_the_cameras(prompt: str, match: re.Match[str]) -> bool:
    """Whether the words are about the camera, not about a subject in the picture."""
    words = match[0].lower()
    if words.startswith(("camera", "dutch", "shaky", "hand")):
        return True
    rest = prompt[match.end() : match.end() + 20]
    if _THINGS.fullmatch(words) and _PLACES.match(rest):
        return False  # a dolly in the nursery, a truck left the yard
    before = prompt[max(0, match.start() - _LOOK_BACK) : match.start()]
    sentence = re.split(r"[.!?\n]", before)[-1]
    clause = re.split(r"[,;:]", sentence)[-1]
    acts = re.match(r"\w+s\b", words) is not None and not words.startswith("dollies")
    subjects = list(_SUBJECT.finditer(clause))
    if subjects:
        clause = clause[subjects[-1].end() :]
    elif acts and clause != sentence and not _SUBJECT.search(sentence) and not _only_plain(sentence):
        return False  # "the train stops, pulls out": the subject is in the clause before
    elif not acts and (joined := list(_CONNECTION.finditer(clause))):
        clause = clause[joined[-1].end() :]
    if not _only_plain(clause):
        return False
    bare = re.search(r"\b(?:a|an)\s+$", before, re.IGNORECASE) is not None
    return not (bare and _THINGS.fullmatch(words) and re.match(r"\s+on\b", rest))


def _only_plain(text: str) -> bool:
    words = re.findall(r"[\w']+", text.lower())
    return all(word in _PLAIN_WORDS or word.endswith("ly") for word in words)


def parse_camera(text: str) -> Camera:
    """The moves of an explicit ``--camera``, such as ``push_in``, ``pan_left slow`` or ``tilt up + handheld``.

    Raises:
        ValueError: An unknown word (the message names the nearest known one), two opposite moves, or no move.
    """
    moves: list[str] = []
    speed = NORMAL
    for word in _join_pairs(re.split(r"[\s,;+]+", text.strip().lower().replace("-", "_"))):
        if word in _SPEEDS:
            speed = _SPEEDS[word]
            continue
        move = _ALIASES.get(word, word)
        if move not in MOVES:
            hint = guess(word, [*MOVES, *_ALIASES, *_SPEEDS])
            raise ValueError(f"unknown camera word {word!r}{hint and f'. {hint}'}")
        if move not in moves:
            moves.append(move)
    if not moves:
        raise ValueError(f"{text!r} names no camera move")
    for move in moves:
        if _opposite(move) in moves:
            raise ValueError(f"{move!r} and {_opposite(move)!r} cannot be made together")
    return Camera(("static",), NORMAL) if "static" in moves else Camera(tuple(moves), speed)


def _join_pairs(words: list[str]) -> list[str]:
    """Join ``["pan", "left"]`` into ``["pan_left"]``: people write both."""
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
    """The speed in the clause of the first move, else normal: "a fast car, slow push in" is slow."""
    for clause in _CLAUSE.finditer(prompt):
        if clause.start() <= place <= clause.end():
            for word in re.findall(r"[a-z]+", clause[0].lower()):
                if word in _SPEEDS:
                    return _SPEEDS[word]
    return NORMAL
