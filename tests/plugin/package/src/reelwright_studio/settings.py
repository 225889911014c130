"""The settings of the studio, beside those that every generator shares."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from reelwright.config.fields import FilePath, Positive
from reelwright.config.settings import Settings


class StudioSettings(Settings):
    """Keys of the section ``generators: {studio: ...}``."""

    lens: Annotated[float, Field(gt=0, le=600)] = Field(50.0, description="focal length, millimetres")
    look: FilePath | None = Field(None, description="file of a colour look")
    extras: tuple[FilePath, ...] = Field((), description="more files")
    grain: bool = Field(False, description="film grain")
    takes: Positive = Field(1, description="takes of each shot")
    api_token: str | None = Field(None, description="token of the studio")
    pass_phrase: SecretStr | None = Field(None, description="opens the studio's door")
