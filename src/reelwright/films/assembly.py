"""From clips to the film: joined, verified, published with a manifest of every shot; nothing if nothing changed.

The film gets its name by the same atomic move as a clip, and replaces an older one only if that is ours: the very
file that its manifest describes, made from the same storyboard.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import workspace
from .._version import __version__
from ..errors import Failure, InvalidInputError, StateError, VideoGenerationError, error_for
from ..executors import Cancellation
from ..history import load_manifest
from ..plan import ExpectedVideo
from ..result import Manifest, manifest_path
from . import EmitFilm, FilmEvent, Joining
from .planning import Planned, Planner
from .render import FilmOrder, Made, chosen_shots, make_clips, rules
from .store import Clip, Store, file_digest, key_of
from .timeline import segments

TASK = "film"
SHEET_SUFFIX = ".sheet.png"


def _ignore(event: FilmEvent) -> None:
    """The default listener."""


@dataclass(frozen=True)
class FilmResult:
    """What a successful `film` returns.

    Attributes:
        output, manifest, sheet: The film, its manifest, and a picture with a row per shot.
        rendered, stored: Segments that were made now, and that were there.
        how: Whether the clips were copied or encoded again, and why.
        joints: What was measured at every joint (`media.joining.Joint`).
        estimate: For a draft: what the real film would take, in words.
        unchanged: The film was there already, and is what would be made now.
    """

    output: Path
    manifest: Path
    sheet: Path
    width: int
    height: int
    num_frames: int
    fps: float
    seconds: float
    generative: bool
    degraded: bool
    rendered: tuple[str, ...]
    stored: tuple[str, ...]
    failed: tuple[str, ...]
    how: str
    joints: tuple[Mapping[str, Any], ...]
    warnings: tuple[str, ...]
    estimate: tuple[str, ...] = ()
    unchanged: bool = False

    def to_json(self) -> dict[str, Any]:
        """The result object that ``--json`` prints as its last line."""
        data = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        data["frames"] = data.pop("num_frames")
        return {key: str(value) if isinstance(value, Path) else value for key, value in data.items()}


def film(order: FilmOrder, emit: EmitFilm = _ignore, cancellation: Cancellation | None = None) -> FilmResult:
    """Make the film of an order: what is missing is rendered, what is there is used; then it is joined and verified.

    May be interrupted at any moment and called again. Two calls for one output cannot run at the same time.

    Raises:
        VideoGenerationError: see `errors`; of a shot that failed, with its name, after all that does not need it.
    """
    output = workspace.absolute_output(order.output)
    workspace.check_folder(output)
    workspace.recover(output.parent)
    store = Store(output.parent)
    cancellation = cancellation or Cancellation()
    with store.held(output.stem):
        before = _ours(order, output)
        made = make_clips(order, store, emit, cancellation)
        store.note(output.stem, order.source, [item.key for item in made.planned])
        if made.failures and not (order.keep_going and _parts(order, made)):
            raise _failed(made)
        return _Assembly(order, made, output, before).result(emit, cancellation)


def _ours(order: FilmOrder, output: Path) -> Manifest | None:
    """The manifest of the film that lies there, if we may replace it; ``None`` if nothing lies there.

    Raises:
        InvalidInputError: what lies there is not ours, or was changed since.
    """
    record = manifest_path(output)
    if not output.exists() and not record.exists():
        return None
    try:
        manifest = load_manifest(record)
    except (InvalidInputError, StateError):
        manifest = None
    same = manifest is not None and manifest.task == TASK and _unchanged(manifest, output)
    if same or order.settings.if_exists == "overwrite":
        return manifest if same else None
    raise InvalidInputError(
        f"{output if output.exists() else record} exists and is no unchanged film of ours",
        failure=Failure.EXISTS,
        advice="Give another -o, or --overwrite.",
    )


def _unchanged(manifest: Manifest, output: Path) -> bool:
    """Whether the film is the very file that its manifest describes; one that was removed may be made again."""
    return not output.exists() or (manifest.output or {}).get("sha256") == file_digest(output)


def _failed(made: Made) -> VideoGenerationError:
    name, error = next(iter(made.failures.items()))
    lines = [f"{other}: {failure.code}: {failure.message}" for other, failure in made.failures.items() if other != name]
    lines += [f"{other}: not made, it goes on from {cause}" for other, cause in made.blocked.items()]
    advice = f"{error.advice} The other clips are kept: the same command goes on from here.".strip()
    return error_for(error.failure, f"shot {name}: {error.message}", evidence=(*error.evidence, *lines), advice=advice)


@dataclass(frozen=True)
class _Piece:
    """A segment that the film shows, with its clip."""

    planned: Planned
    clip: Clip

    @property
    def name(self) -> str:
        return self.planned.segment.id


def _parts(order: FilmOrder, made: Made) -> tuple[_Piece, ...]:
    """What the film will show, in its order."""
    shots = chosen_shots(order)
    found = (item for item in made.planned if item.segment.shot in shots and item.segment.id in made.clips)
    return tuple(_Piece(item, made.clips[item.segment.id]) for item in found)


class _Assembly:
    """Joining, verifying and publishing one film."""

    def __init__(self, order: FilmOrder, made: Made, output: Path, before: Manifest | None) -> None:
        self._order, self._made, self._output, self._before = order, made, output, before
        self._pieces = _parts(order, made)
        self._sheet = output.with_name(output.stem + SHEET_SUFFIX)

    def result(self, emit: EmitFilm, cancellation: Cancellation) -> FilmResult:
        """The film as it lies there if nothing changed, else as it is made now."""
        key = self._key()
        there = self._output.exists() and self._sheet.exists()
        if self._before is not None and self._before.facts.get("key") == key and there:
            return self._told(self._before, unchanged=True)
        return self._told(self._made_now(key, emit, cancellation))

    def _key(self) -> str:
        board = self._order.board
        return key_of(
            {
                "clips": [(piece.clip.manifest.output or {}).get("sha256") for piece in self._pieces],
                "joints": [self._joint(index) for index in range(len(self._pieces))],
                "film": board.model_dump(mode="json", include={"title", "size", "color", "overlap", "finish", "fps"}),
                "audio": [str(file_digest(board.audio.file)), board.audio.fade_s] if board.audio else None,
                "codec": self._order.settings.codec,
                "engine": __version__,
            }
        )

    def _joint(self, index: int) -> tuple[bool, int]:
        """Whether a piece goes on from the one shown before it, and its dissolve."""
        if index == 0:
            return False, 0
        segment, before = self._pieces[index].planned.segment, self._pieces[index - 1]
        return segment.upstream == before.name, segment.dissolve

    def _made_now(self, key: str, emit: EmitFilm, cancellation: Cancellation) -> Manifest:
        from ..media import joining
        from ..media.sheet import FilmSheet

        started = datetime.now(UTC)
        run_id = workspace.new_run_id()
        folder = workspace.plan_folder(self._output, run_id)
        with workspace.open_folder(folder):
            folder.attempt(1).mkdir(mode=0o700)
            video, parts, options = folder.video(1), self._join_parts(), self._join_options()

            def joined(done: int, total: int) -> None:
                emit(Joining(done, total))

            sheet_png, sheet = folder.attempt(1) / "sheet.png", FilmSheet(self._rows(parts, options))
            with ThreadPoolExecutor(1, thread_name_prefix="verify") as pool:
                verified = _Verification(pool, video, self._promise(parts, options))

                def look(number: int, frame: Any) -> None:
                    verified.begin()  # beside the pass that looks at the joints: it decodes in a process of its own
                    sheet.look(number, frame)

                report = joining.join(parts, video, options, joined, cancellation.check, look=look)
                facts = verified.facts()
            sheet.save(sheet_png)
            cancellation.check()
            workspace.place(sheet_png, self._sheet)
            manifest = self._manifest(run_id, started, {"key": key, **report.to_json()}, facts)
            replace = self._before is not None or self._order.settings.if_exists == "overwrite"
            workspace.publish(folder, video, manifest, replace=replace)
        return manifest

    def _rows(self, parts: list[Any], options: Any) -> list[tuple[str, int, int]]:
        """Name, first frame and number of frames of each clip in the film."""
        from ..media import joining

        lengths = [int((piece.clip.manifest.output or {})["frames"]) for piece in self._pieces]
        begins = joining.places(lengths, parts, options)
        ends = (*begins[1:], joining.expected_frames(lengths, parts, options))
        names = [piece.name for piece in self._pieces]
        return [(name, begin, end - begin) for name, begin, end in zip(names, begins, ends, strict=True)]

    def _promise(self, parts: list[Any], options: Any) -> ExpectedVideo:
        from ..media import joining

        lengths = [int((piece.clip.manifest.output or {})["frames"]) for piece in self._pieces]
        size, fps = joining.finished(options)
        return ExpectedVideo(size.width, size.height, joining.expected_frames(lengths, parts, options), fps)

    def _join_parts(self) -> list[Any]:
        from ..media.joining import Part

        parts = []
        for index, piece in enumerate(self._pieces):
            chained, dissolve = self._joint(index)
            first = self._pieces[index - 1].clip.last_frame if chained else None
            parts.append(Part(piece.clip.video, first, chained and not dissolve, dissolve))
        return parts

    def _join_options(self) -> Any:
        from ..media.joining import JoinOptions

        board, generative = self._order.board, self._generative()
        first = self._pieces[0].clip.manifest.output or {}
        how = "a model generated it" if generative else "an animatic preview, no model has generated anything"
        return JoinOptions(
            size=self._size(),
            fps=float(first["fps"]),
            title=board.title,
            color=board.color,
            overlap=board.overlap,
            double_fps=board.finish.double_fps,
            upscale=board.finish.upscale,
            audio=board.audio.file if board.audio else None,
            audio_fade_s=board.audio.fade_s if board.audio else 1.0,
            metadata={
                "comment": f"Joined by reelwright from {len(self._pieces)} clips; {how}.",
                "generative": str(generative).lower(),
            },
            codec=self._order.settings.codec,
        )

    def _size(self) -> Any:
        from ..request import Size

        first = self._pieces[0].clip.manifest.output or {}
        return Size(int(first["width"]), int(first["height"]))

    def _generative(self) -> bool:
        return any(piece.clip.manifest.generative for piece in self._pieces)

    def _manifest(
        self, run_id: str, started: datetime, facts: Mapping[str, Any], output: Mapping[str, Any]
    ) -> Manifest:
        order = self._order
        warnings = list(self._made.warnings)
        for piece in self._pieces:
            warnings += [f"{piece.name}: {text}" for text in piece.clip.manifest.warnings]
        warnings += list(facts.get("warnings", ()))
        if self._made.failures:
            warnings.append(f"left out, because they failed: {', '.join([*self._made.failures, *self._made.blocked])}")
        return Manifest(
            run_id=run_id,
            reelwright=__version__,
            generator=", ".join(dict.fromkeys(piece.planned.backend.name for piece in self._pieces)),
            task=TASK,
            generative=self._generative(),
            state="completed",
            created_at=started.isoformat(timespec="seconds"),
            requested={"prompt": order.board.title, "storyboard": str(order.source) if order.source else None},
            output={"path": self._output.name, **output},
            seconds=(datetime.now(UTC) - started).total_seconds(),
            degraded=any(piece.clip.manifest.degraded for piece in self._pieces) or bool(self._made.failures),
            warnings=tuple(dict.fromkeys(warnings)),
            facts={**facts, "shots": [_shot(piece) for piece in self._pieces], "estimate": list(self._estimate())},
        )

    def _estimate(self) -> Sequence[str]:
        """What the real film would take, for a draft of one that names another generator."""
        order = self._order
        if not order.draft:
            return ()
        planner = Planner(order.settings, self._output.parent, order.environ)
        try:
            real = planner.plan(segments(order.board, lambda name: rules(name, order.settings)))
        except VideoGenerationError as error:
            return (f"the real film cannot be estimated: {error.message}",)
        if all(item.backend.name == "draft" for item in real):
            return ()
        return tuple(_estimated(real))

    def _told(self, manifest: Manifest, *, unchanged: bool = False) -> FilmResult:
        output, facts = manifest.output or {}, manifest.facts
        rendered = tuple(self._made.rendered)
        return FilmResult(
            output=self._output,
            manifest=manifest_path(self._output),
            sheet=self._sheet,
            width=output["width"],
            height=output["height"],
            num_frames=output["frames"],
            fps=output["fps"],
            seconds=output["seconds"],
            generative=manifest.generative,
            degraded=manifest.degraded,
            rendered=rendered,
            stored=tuple(name for name in self._made.clips if name not in rendered),
            failed=(*self._made.failures, *self._made.blocked),
            how=str(facts.get("how", "")),
            joints=tuple(facts.get("joints", ())),
            warnings=manifest.warnings,
            estimate=tuple(facts.get("estimate", ())),
            unchanged=unchanged,
        )


class _Verification:
    """The full check of the film, begun once and waited for at the end."""

    def __init__(self, pool: ThreadPoolExecutor, video: Path, promise: ExpectedVideo) -> None:
        self._pool, self._video, self._promise = pool, video, promise
        self._running: Future[dict[str, Any]] | None = None

    def begin(self) -> None:
        from ..media import examination

        if self._running is None:
            self._running = self._pool.submit(examination.verify, self._video, self._promise, apart=True)

    def facts(self) -> dict[str, Any]:
        """What the decode found; raises `OutputError` if it is not the promised film."""
        self.begin()
        assert self._running is not None
        return self._running.result()


def _shot(piece: _Piece) -> dict[str, Any]:
    """A clip's entry in the film's manifest: its own manifest, and where it lies."""
    return {
        "segment": piece.name,
        "shot": piece.planned.segment.shot,
        "key": piece.clip.key,
        "goes_on_from": piece.planned.segment.upstream,
        "manifest": json.loads(piece.clip.manifest.to_text()),
    }


def _estimated(real: Sequence[Planned]) -> list[str]:
    seconds = [item.plan.seconds for item in real]
    known = [value for value in seconds if value is not None]
    memory = max((item.plan.gpu_bytes or 0 for item in real), default=0)
    names = ", ".join(dict.fromkeys(item.backend.name for item in real))
    lines = [f"the real film by {names}: {len(real)} clips"]
    if memory:
        lines[0] += f", about {memory / 2**30:.0f} GiB of GPU memory each"
    if len(known) == len(seconds):
        lines.append(f"about {sum(known) / 3600:.1f} h on one place, from this machine's history")
    else:
        lines.append("its time is not known yet: this machine has not made such a clip")
    problems = dict.fromkeys(finding.message for item in real for finding in item.plan.errors)
    lines += [f"it could not be made here now: {text}" for text in problems]
    return lines
