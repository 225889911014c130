"""The Python interface: the functions `generate` and `film`, and the generator classes that a pipeline expects.

    >>> generator = create_video_generator("draft", {})
    >>> generator.get_backend_name()
    'draft'

A generator class calls `runs.runner.generate`, as the command line does, so the checks, attempts, verification and
manifest are the same.
"""

from __future__ import annotations

import atexit
import functools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import backends
from ..backends import Backend
from ..backends.settings import load_settings, settings_from_mapping, with_every_key
from ..config.settings import Settings
from ..core.errors import ConfigurationError, InvalidInputError, VideoGenerationError, all_of, nearest
from ..core.events import Event
from ..core.files import refusals
from ..core.manifest import Result
from ..core.request import VideoRequest, read_request
from ..runs.order import Order
from ..runs.prepare import Preparer
from ..runs.runner import generate as run_order
from ..sites import unreported
from ..sites.cancellation import Cancellation
from ..sites.local.site import LocalSite

if TYPE_CHECKING:
    from ..films import FilmEvent
    from ..films.assembly import FilmResult
    from ..films.render import FilmOrder
    from ..films.storyboard import Storyboard

#: The cancellation of a call that `api.asynchronous` makes in a thread.
CANCELLATION: ContextVar[Cancellation | None] = ContextVar("CANCELLATION", default=None)
#: Keyword names of ``generate_video`` in docs/requirement.md, and the fields of the request that they set.
_DOCUMENTED = {
    "sample_steps": "steps",
    "guide_scale": "guidance_scale",
    "sample_shift": "flow_shift",
    "frame_num": "num_frames",
    "base_seed": "seed",
    "last_image_path": "last_image",
    "last_frame": "last_image",
}
#: Documented spellings of the generators' names.
_DOCUMENTED_NAMES = {"wan": "wan2.1", "wan21": "wan2.1", "hunyuan_video": "hunyuan", "hunyuanvideo": "hunyuan"}


class VideoGenerator(ABC):
    """The six methods of the interface in docs/requirement.md."""

    @abstractmethod
    def generate_video(
        self, prompt: str, input_image_path: str, output_path: str, duration: float = 5.0, **kwargs: Any
    ) -> str:
        """Make the clip and return its path; raise `VideoGenerationError` or a subclass."""

    @abstractmethod
    def get_capabilities(self) -> dict[str, Any]:
        """The generator's capabilities on this machine with this configuration."""

    @abstractmethod
    def estimate_cost(self, duration: float, resolution: str = "1280x720") -> float:
        """The price of a clip; 0.0 for local work."""

    @abstractmethod
    def validate_inputs(self, prompt: str, input_image_path: str, duration: float) -> list[str]:
        """The mistakes in the inputs, one sentence each; empty if there are none."""

    @abstractmethod
    def is_available(self) -> bool:
        """Whether the generator could start now; `LocalVideoGenerator.unavailable_because` gives the reasons if not."""

    @abstractmethod
    def get_backend_name(self) -> str:
        """The generator's name."""


class LocalVideoGenerator(VideoGenerator):
    """The interface for any backend, with a mapping of settings or with `Settings` that are already loaded."""

    backend_name = "auto"

    def __init__(self, config: Mapping[str, Any] | Settings | None = None) -> None:
        if isinstance(config, Settings):
            settings = config
        else:
            settings = settings_from_mapping(config or {}, generator=self.backend_name)
        self.settings = settings.for_generator(self.backend_name)
        self.backend: Backend = backends.load_backend(self.backend_name)

    def generate_video(
        self, prompt: str, input_image_path: str, output_path: str, duration: float = 5.0, **kwargs: Any
    ) -> str:
        """Make the clip and return its path; ``on_progress`` receives every event of `core.events`."""
        on_progress: Callable[[Event], None] | None = kwargs.pop("on_progress", None)
        request, wrong = self._request(prompt, input_image_path, duration, kwargs)
        order = order_of(request, wrong, self.settings, output_path)
        return str(_run(order, on_progress).output)

    def _request(
        self, prompt: str, input_image_path: str | None, duration: float, options: Mapping[str, Any]
    ) -> tuple[VideoRequest, tuple[VideoGenerationError, ...]]:
        known = {field.name for field in fields(VideoRequest)}
        values = {_DOCUMENTED.get(name, name): value for name, value in options.items() if value is not None}
        unknown = sorted(set(values) - known)
        if unknown:
            near = [match for name in unknown if (match := nearest(name, [*known, *_DOCUMENTED]))]
            raise ConfigurationError(
                f"generate_video got unknown options: {', '.join(unknown)}",
                advice=f"Did you mean {', '.join(near)}?" if near else f"Known: {', '.join(sorted(known))}.",
            )
        if "num_frames" not in values and "seconds" not in values:
            # The documented default of 5.0 s means "one clip"; a configured frame_num gives its exact length.
            exact = duration == 5.0 and self.settings.frame_num is not None
            values["num_frames" if exact else "seconds"] = self.settings.frame_num if exact else duration
        named = {"generator": self.backend_name, **values}
        return read_request(prompt=prompt, image=input_image_path or None, **named)

    @refusals()
    def get_capabilities(self) -> dict[str, Any]:
        """The documented keys, and further keys of Reelwright's."""
        query = self.backend.query(_ANY_REQUEST, self.settings)
        return self.backend.capabilities(self.settings, local_site().look(query, self.settings)).to_json()

    def estimate_cost(self, duration: float, resolution: str = "1280x720") -> float:  # noqa: ARG002 -- documented signature
        """0.0, because local work costs nothing."""
        return 0.0

    @refusals()
    def validate_inputs(self, prompt: str, input_image_path: str, duration: float) -> list[str]:
        """Every mistake in the request, the pictures and the plan, one sentence each; no faults of the machine."""
        try:
            request, wrong = self._request(prompt, input_image_path, duration, {})
            found = [
                *wrong,
                *Preparer(local_site()).mistakes(Order(request, self.settings, Path("film.mp4")), inputs_only=True),
            ]
        except VideoGenerationError as error:
            found = [error, *error.also]
        return [error.message for error in found]

    def is_available(self) -> bool:
        """Whether the generator could start now."""
        return not self.unavailable_because()

    @refusals()
    def unavailable_because(self) -> list[str]:
        """The reasons why the generator cannot start now; empty if it can."""
        from ..doctor import availability

        return [
            finding.message
            for finding in availability(self.backend, self.settings, local_site())
            if finding.severity == "error"
        ]

    def get_backend_name(self) -> str:
        """The generator's name."""
        return self.backend_name


#: The request for a backend's query before any real request exists.
_ANY_REQUEST = VideoRequest(prompt="any", image=Path("any.png"))


class DraftGenerator(LocalVideoGenerator):
    """The draft generator: an animatic on the CPU. No model generates anything, and the result says so."""

    backend_name = "draft"


class Wan21Generator(LocalVideoGenerator):
    """Wan2.1 through its official generate.py."""

    backend_name = "wan2.1"


class HunyuanVideoGenerator(LocalVideoGenerator):
    """The HunyuanVideo family through Tencent's official scripts."""

    backend_name = "hunyuan"


class DiffusersGenerator(LocalVideoGenerator):
    """The resident engine: weights stay loaded between calls, until `release`."""

    backend_name = "diffusers"


_CLASSES: Mapping[str, type[LocalVideoGenerator]] = {
    kind.backend_name: kind for kind in (DraftGenerator, Wan21Generator, HunyuanVideoGenerator, DiffusersGenerator)
}


def create_video_generator(backend: str, config: Mapping[str, Any] | Settings | None = None) -> LocalVideoGenerator:
    """Create the generator of this name from the flat mapping of a pipeline_config.yaml, or from loaded settings.

    Raises:
        ConfigurationError: unknown name or key.
    """
    name = backend.lower() if backend.lower() in (*_DOCUMENTED_NAMES, *_CLASSES) else backend
    return _class_of(_DOCUMENTED_NAMES.get(name, name))(config)


def _class_of(name: str) -> type[LocalVideoGenerator]:
    if name in _CLASSES:
        return _CLASSES[name]
    backends.load_backend(name)  # raises for an unknown name
    return type("PluginGenerator", (LocalVideoGenerator,), {"backend_name": name})


class ImageValidator:
    """The picture checks in the form of docs/requirement.md."""

    @staticmethod
    @refusals()
    def validate_image(path: str | Path, max_size_mb: float | None = None) -> dict[str, Any]:
        """``valid``, ``errors`` and ``info`` of a picture file; ``max_size_mb`` lowers the size limit."""
        from ..media.image import Intake, describe_picture

        limit = Intake().max_bytes
        asked = limit if max_size_mb is None else min(limit, int(max_size_mb * 1024 * 1024))
        return describe_picture(Path(path), Intake(max_bytes=asked))


def generate(
    prompt: str,
    image: str | Path | None = None,
    output: str | Path = "film.mp4",
    *,
    settings: Settings | Mapping[str, Any] | None = None,
    on_progress: Callable[[Event], None] | None = None,
    **options: Any,
) -> Result:
    """Make one clip: ``reelwright.generate("slow push in", "cat.jpg", "clip.mp4", seconds=5)``.

    ``options`` are the fields of `VideoRequest` (``last_image``, ``size``, ``seed``, ``generator``, ...).

    Raises:
        VideoGenerationError: or a subclass; see `core.errors`.
    """
    request, wrong = read_request(prompt=prompt, image=image or None, **options)
    order = order_of(request, wrong, effective_settings(settings), output)
    return _run(order, on_progress)


def _run(order: Order, on_progress: Callable[[Event], None] | None) -> Result:
    return run_order(order, on_progress or unreported, CANCELLATION.get(), local_site())


@refusals()
def order_of(
    request: VideoRequest, wrong: Sequence[VideoGenerationError], settings: Settings, output: str | Path
) -> Order:
    """The order for a request. A request with mistakes is refused; the error lists every mistake."""
    order = Order(request, settings, Path(output))
    if wrong:
        raise all_of([*wrong, *Preparer(local_site()).mistakes(order)])
    return order


def film(  # noqa: PLR0913 -- a public function; all but two arguments are given by name
    storyboard: str | Path | Storyboard,
    output: str | Path = "film.mp4",
    *,
    draft: bool = False,
    keep_going: bool = False,
    settings: Settings | Mapping[str, Any] | None = None,
    on_event: Callable[[FilmEvent], None] | None = None,
) -> FilmResult:
    """Make a film: ``reelwright.film("film.yaml", "film.mp4", draft=True)``; clips that exist are not made again.

    ``on_event`` is called from several threads, one at a time for each shot.

    Raises:
        VideoGenerationError: or a subclass; the message names the shot that failed.
    """
    from ..films.assembly import film as make_film

    order = film_order(storyboard, output, settings, draft=draft, keep_going=keep_going)
    return make_film(order, on_event or (lambda _event: None), CANCELLATION.get(), local_site())


@refusals()
def film_order(
    storyboard: str | Path | Storyboard,
    output: str | Path,
    settings: Settings | Mapping[str, Any] | None,
    *,
    draft: bool,
    keep_going: bool,
) -> FilmOrder:
    """The order of a film."""
    from ..films.render import FilmOrder
    from ..films.storyboard import Storyboard, load_storyboard

    if isinstance(storyboard, Storyboard):
        board, source = storyboard, None
    elif isinstance(storyboard, (str, os.PathLike)):
        board, source = load_storyboard(Path(storyboard)), Path(storyboard).absolute()
    else:
        text = f"storyboard must be the path of a file or a Storyboard, not {type(storyboard).__name__}"
        raise InvalidInputError(text, advice="Make one of a dict with Storyboard.model_validate(...).")
    return FilmOrder(board, effective_settings(settings), Path(output), source, draft=draft, keep_going=keep_going)


@functools.cache
def local_site() -> LocalSite:
    """The site of this machine, shared by all calls of this Python process, so that workers stay warm between calls."""
    site = LocalSite()
    atexit.register(site.close)
    return site


def release() -> None:
    """Free all GPU and host memory that engines keep for the next call; that call then loads its model again.

    Runs in other threads continue.
    """
    local_site().release_idle()


def effective_settings(given: Settings | Mapping[str, Any] | None) -> Settings:
    """The settings of a call: the given ones, or those of the settings file and the environment."""
    if given is None:
        return load_settings(environ=os.environ)
    if not isinstance(given, (Settings, Mapping)):
        text = f"settings are a Settings or a dict, not {type(given).__name__}"
        raise ConfigurationError(text, advice="Read a file with load_settings(Path(...), environ=os.environ).")
    return with_every_key(given) if isinstance(given, Settings) else settings_from_mapping(given, generator=None)
