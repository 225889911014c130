"""Decides the order in which clips are made: each starts when the clips it needs exist and a place is free.

>>> plan = Schedule({"a": (), "b": ("a",), "c": ()}, places=2)
>>> plan.start(), plan.start(), plan.start()
('a', 'c', None)
>>> plan.finished("a"); plan.start()
'b'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class Schedule:
    """Knows which clips may start now.

    Args:
        needs: For each clip, in the order of the film, the clips that it continues.
        places: How many clips may run at once.
    """

    def __init__(self, needs: Mapping[str, Sequence[str]], places: int) -> None:
        self._needs = {name: tuple(others) for name, others in needs.items()}
        self._places = places
        self._waiting = list(self._needs)
        self._running: set[str] = set()
        self._done: set[str] = set()
        self.blocked: dict[str, str] = {}

    def start(self) -> str | None:
        """The clip to start now; ``None`` if none is ready or no place is free."""
        if len(self._running) >= self._places:
            return None
        ready = (name for name in self._waiting if set(self._needs[name]) <= self._done)
        name = next(ready, None)
        if name is not None:
            self._waiting.remove(name)
            self._running.add(name)
        return name

    def finished(self, name: str) -> None:
        """Note that a clip is finished."""
        self._running.discard(name)
        self._done.add(name)

    def fail(self, name: str) -> tuple[str, ...]:
        """Note that a clip has failed; return the clips that cannot be made because of it."""
        self._running.discard(name)
        lost: list[str] = []
        for other in list(self._waiting):  # in the film's order: a clip comes after those it needs
            cause = next((need for need in self._needs[other] if need == name or need in lost), None)
            if cause is not None:
                lost.append(other)
                self._waiting.remove(other)
                self.blocked[other] = cause
        return tuple(lost)

    def stop(self) -> None:
        """Start no further clip."""
        self._waiting.clear()

    @property
    def idle(self) -> bool:
        """Whether no clip runs and none can start."""
        return not self._running and not any(set(self._needs[name]) <= self._done for name in self._waiting)
