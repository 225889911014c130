"""Decides the order in which clips are made: each starts when the clip that it continues exists and a place is free.

>>> plan = Schedule({"a": None, "b": "a", "c": None}, places=2)
>>> plan.start(), plan.start(), plan.start()
('a', 'c', None)
>>> plan.finished("a"); plan.start()
'b'
"""

from __future__ import annotations

from collections.abc import Mapping


class Schedule:
    """Knows which clips may start now.

    Args:
        needs: For each clip, in the order of the film, the clip that it continues and that must be made first.
        places: How many clips may run at once.
    """

    def __init__(self, needs: Mapping[str, str | None], places: int) -> None:
        self._needs, self._places = needs, places
        self._waiting = list(needs)
        self._running: set[str] = set()
        self._done: set[str | None] = {None}

    def start(self) -> str | None:
        """The clip to start now; ``None`` if none is ready or no place is free."""
        if len(self._running) >= self._places:
            return None
        name = self._ready()
        if name is not None:
            self._waiting.remove(name)
            self._running.add(name)
        return name

    def _ready(self) -> str | None:
        return next((name for name in self._waiting if self._needs[name] in self._done), None)

    def finished(self, name: str) -> None:
        """Note that a clip is finished."""
        self._running.discard(name)
        self._done.add(name)

    def fail(self, name: str) -> tuple[str, ...]:
        """Note that a clip has failed; return the clips that cannot be made because of it."""
        self._running.discard(name)
        lost: list[str] = []
        for other in list(self._waiting):  # in the film's order: a clip comes after the one it needs
            if self._needs[other] in (name, *lost):
                lost.append(other)
                self._waiting.remove(other)
        return tuple(lost)

    def stop(self) -> None:
        """Start no further clip."""
        self._waiting.clear()

    @property
    def idle(self) -> bool:
        """Whether no clip runs and none can start."""
        return not self._running and self._ready() is None
