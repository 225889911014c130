"""`generate` and `film` for asyncio: the event loop stays free, and cancelling a task stops its run.

    result = await reelwright.agenerate("slow push in", "cat.jpg", "clip.mp4")

The blocking call does the work, in a separate thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from ..core.manifest import Result
from ..sites.cancellation import Cancellation
from . import CANCELLATION, film, generate

if TYPE_CHECKING:
    from ..films.assembly import FilmResult

Made = TypeVar("Made")
Parameters = ParamSpec("Parameters")


def _like(
    call: Callable[Parameters, Made],
) -> Callable[[Callable[..., Coroutine[Any, Any, Made]]], Callable[Parameters, Coroutine[Any, Any, Made]]]:
    """Give a coroutine function the signature of the blocking ``call``, for editors and for `help`."""

    def decorate(function: Callable[..., Coroutine[Any, Any, Made]]) -> Any:
        cast(Any, function).__signature__ = inspect.signature(call)
        return function

    return decorate


@_like(generate)
async def agenerate(*arguments: Any, **options: Any) -> Result:
    """`generate` for asyncio: the event loop stays free, and cancelling the task stops the run.

    A cancelled task ends after its run has stopped and cleaned up. A second cancellation kills the generator at once.
    ``on_progress`` is called in the event loop.

    Raises:
        VideoGenerationError: or a subclass; see `core.errors`.
        asyncio.CancelledError: the task was cancelled.
    """
    return await _in_thread(generate, arguments, options, listener="on_progress")


@_like(film)
async def afilm(*arguments: Any, **options: Any) -> FilmResult:
    """`film` for asyncio: the event loop stays free, and cancelling the task stops the film.

    Finished clips stay in the store. ``on_event`` is called in the event loop.

    Raises:
        VideoGenerationError: or a subclass; see `core.errors`.
        asyncio.CancelledError: the task was cancelled.
    """
    return await _in_thread(film, arguments, options, listener="on_event")


async def _in_thread(
    call: Callable[..., Made], arguments: tuple[Any, ...], options: dict[str, Any], *, listener: str
) -> Made:
    """Run a call in a separate thread; if the task is cancelled, stop the call and wait for its end."""
    loop, cancellation = asyncio.get_running_loop(), Cancellation()
    if options.get(listener) is not None:
        options[listener] = functools.partial(loop.call_soon_threadsafe, options[listener])

    def make() -> Made:
        CANCELLATION.set(cancellation)  # in this thread only
        return call(*arguments, **options)

    with contextlib.closing(cancellation), ThreadPoolExecutor(1, thread_name_prefix="reelwright") as pool:
        running = loop.run_in_executor(pool, make)
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
