"""Defines `Order`: everything about one clip to make, as plain data.

An order holds no object of this process, so that a queue can store it and another machine can receive it.

    >>> order = Order(VideoRequest(prompt="sea", generator="draft"), FlatSettings(), Path("sea.mp4"))
    >>> Order.from_json(order.to_json()) == order
    True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..backends.settings import FlatSettings
from ..config.settings import Settings
from ..core.errors import InvalidInputError
from ..core.request import VideoRequest

SCHEMA = 1


@dataclass(frozen=True)
class Order:
    """A request, with everything that decides where and how the clip is made.

    Attributes:
        request: The request as the user wrote it.
        settings: The settings for every generator.
        output: The path of the clip.
        overrides: Effective parameters to force, as a retry does.
        gpus: The only GPUs that the run may use, by index; empty: all visible GPUs.
        last_frame: The path for the clip's last frame as a PNG, which is lossless if Reelwright encodes the clip. The
            frame exists whenever the clip does.
        match_last_frame_to: A picture whose colours that PNG gets: the first picture of a chain of clips.
        key: The name under which a store keeps the clip; the manifest repeats it.
    """

    request: VideoRequest
    settings: Settings
    output: Path
    overrides: Mapping[str, Any] = field(default_factory=dict)
    gpus: tuple[int, ...] = ()
    last_frame: Path | None = None
    match_last_frame_to: Path | None = None
    key: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The order as JSON values. ``settings`` contains secrets without a mask: keep the text private."""
        return {
            "schema": SCHEMA,
            "request": self.request.to_json(),
            "settings": self.settings.to_json(),
            "output": str(self.output),
            "overrides": dict(self.overrides),
            "gpus": list(self.gpus),
            "last_frame": str(self.last_frame) if self.last_frame else None,
            "match_last_frame_to": str(self.match_last_frame_to) if self.match_last_frame_to else None,
            "key": self.key,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Order:
        """The order that `to_json` wrote.

        Raises:
            InvalidInputError: the data has another schema, or a part is missing or wrong.
        """
        if data.get("schema") != SCHEMA:
            raise InvalidInputError(
                f"the order has schema {data.get('schema')!r}, and this version reads schema {SCHEMA}",
                advice="Read it with the version of Reelwright that wrote it.",
            )
        try:
            return cls(
                request=VideoRequest.from_json(data["request"]),
                settings=FlatSettings.from_json(data["settings"]),
                output=Path(data["output"]),
                overrides=dict(data["overrides"]),
                gpus=tuple(data["gpus"]),
                last_frame=_path(data["last_frame"]),
                match_last_frame_to=_path(data["match_last_frame_to"]),
                key=data["key"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidInputError(f"the order is damaged: {type(error).__name__}: {error}") from error


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None
