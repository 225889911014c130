"""`generate` and `film` for asyncio: the event loop stays free, and cancelling a task stops its run.

    result = await reelwright.agenerate("slow push in", "cat.jpg", "clip.mp4")

The blocking call does the work, in a separate thread.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..config.settings import Settings
from ..core.events import Event
from ..core.manifest import Result
from ..core.request import read_request
from ..runs.runner import generate as run_order
from ..sites.cancellation import Cancellation
from . import effective_settings, film_order, local_site, order_of

if TYPE_CHECKING:
    from ..films import FilmEvent
    from ..films.assembly import FilmResult
    from ..films.storyboard import Storyboard

Made = TypeVar("Made")


async def agenerate(
    prompt: str,
    image: str | Path | None = None,
    output: str | Path = "film.mp4",
    *,
    settings: Settings | Mapping[str, Any] | None = None,
    on_progress: Callable[[Event], None] | None = None,
    **options: Any,
) -> Result:
    """`generate` for asyncio: the event loop stays free, and cancelling the task stops the run.

    A cancelled task ends after its run has stopped and cleaned up. A second cancellation kills the generator at once.
    ``on_progress`` is called in the event loop.

    Raises:
        VideoGenerationError: or a subclass; see `core.errors`.
        asyncio.CancelledError: the task was cancelled.
    """
    request, wrong = read_request(prompt=prompt, image=image or None, **options)
    loaded = effective_settings(settings)

    def make(report: Callable[[Any], None], cancellation: Cancellation) -> Result:
        return run_order(order_of(request, wrong, loaded, output), report, cancellation, local_site())

    return await _in_thread(make, on_progress)


async def afilm(  # noqa: PLR0913 -- as `film`
    storyboard: str | Path | Storyboard,
    output: str | Path = "film.mp4",
    *,
    draft: bool = False,
    keep_going: bool = False,
    settings: Settings | Mapping[str, Any] | None = None,
    on_event: Callable[[FilmEvent], None] | None = None,
) -> FilmResult:
    """`film` for asyncio: the event loop stays free, and cancelling the task stops the film.

    Finished clips stay in the store. ``on_event`` is called in the event loop.

    Raises:
        VideoGenerationError: or a subclass; see `core.errors`.
        asyncio.CancelledError: the task was cancelled.
    """
    from ..films.assembly import film as make_film

    def make(report: Callable[[Any], None], cancellation: Cancellation) -> FilmResult:
        order = film_order(storyboard, output, settings, draft=draft, keep_going=keep_going)
        return make_film(order, report, cancellation, local_site())

    return await _in_thread(make, on_event)


async def _in_thread(
    make: Callable[[Callable[[Any], None], Cancellation], Made], listen: Callable[[Any], None] | None
) -> Made:
    """Run a call in a separate thread; if the task is cancelled, stop the call and wait for its end."""
    loop, cancellation = asyncio.get_running_loop(), Cancellation()

    def report(event: Any) -> None:
        if listen is not None:
            loop.call_soon_threadsafe(listen, event)

    with contextlib.closing(cancellation), ThreadPoolExecutor(1, thread_name_prefix="reelwright") as pool:
        running = loop.run_in_executor(pool, make, report, cancellation)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            cancellation.request()
            while not running.done():
                try:
                    await asyncio.wait([running])
                except asyncio.CancelledError:
                    cancellation.request(now=True)
            running.exception()  # marks the run's error as retrieved; the task reports only its cancellation
            raise
