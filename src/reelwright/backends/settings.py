"""The settings of all generators: the flat keys of a settings file, and the functions that read them.

A backend's own keys are in ``backends/NAME/settings.py``. The keys of Reelwright's own backends may be at top level, as
in an existing pipeline_config.yaml; those of another package's backend belong in the section ``generators.NAME``.

    >>> settings = load_settings(environ={}, arguments={"wan2_dir": "/opt/Wan2.1"})
    >>> type(settings.for_generator("wan2.1")).__name__, settings.for_generator("wan2.1").origin("wan2_dir")
    ('Wan21Settings', 'argument')
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ..config.loading import SettingsLoader
from ..config.settings import Settings
from ..core.errors import ConfigurationError
from . import load_backend, names
from .diffusers.settings import DiffusersSettings
from .draft.settings import DraftSettings
from .hunyuan.settings import HunyuanSettings
from .wan21.settings import Wan21Settings


class FlatSettings(Wan21Settings, HunyuanSettings, DiffusersSettings, DraftSettings):
    """Every flat key of a settings file; `for_generator` gives the part of one generator."""

    configures: ClassVar[Mapping[str, str]] = {
        "wan2_dir": "wan2.1",
        "i2v_model_dir": "wan2.1",
        "flf2v_model_dir": "wan2.1",
        "t2v_model_dir": "wan2.1",
        "t2v_1_3b_model_dir": "wan2.1",
        "hunyuan_dir": "hunyuan",
        "ckpt_path": "hunyuan",
    }

    @classmethod
    def model_of(cls, name: str) -> type[Settings] | None:
        """The class of a generator's settings; ``None`` if no generator has that name, or it cannot be loaded."""
        try:
            return load_backend(name).settings
        except ConfigurationError:
            return None

    @classmethod
    def generator_names(cls) -> tuple[str, ...]:
        """The names of all generators, including those that cannot be loaded."""
        return names()


LOADER = SettingsLoader(FlatSettings)
load_settings = LOADER.load
read_settings = LOADER.read
parse_assignment = LOADER.assignment
settings_from_mapping = LOADER.from_mapping


def with_every_key(settings: Settings) -> Settings:
    """Settings that serve every generator; an instance of the shared class alone gets the keys of all generators."""
    return FlatSettings.from_json(settings.to_json()) if type(settings.flat) is Settings else settings
