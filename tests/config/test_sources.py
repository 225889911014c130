"""Where settings come from: every mistake of every source at once, paths, precedence, sections, and no secret shown."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from reelwright import Settings, load_settings
from reelwright.backends import load_backend
from reelwright.backends.diffusers.settings import DiffusersSettings, Lora
from reelwright.backends.settings import parse_assignment, read_settings, settings_from_mapping
from reelwright.config.loading import SettingsLoader
from reelwright.config.settings import Settings as SharedSettings
from reelwright.core.errors import ConfigurationError, VideoGenerationError
from tests.config.test_settings import a_file
from tests.plugin.installed import add_distribution, install

SECRET = "hunter2-is-shown-nowhere"


def types_in(hint: Any) -> set[type]:
    """Every type that a hint names, also inside the dataclasses that it names."""
    if fields := get_type_hints(hint) if dataclasses.is_dataclass(hint) else {}:
        return set().union(*map(types_in, fields.values()))
    inner = [types_in(part) for part in get_args(hint) if part is not ...]
    return set().union(*inner) if inner else {hint} if isinstance(hint, type) else set()


#: Every setting that holds a path; a new one is in here by itself.
PATHS = [
    key for key, hint in get_type_hints(Settings).items() if key in Settings.model_fields and Path in types_in(hint)
]


def everything_said(error: VideoGenerationError) -> str:
    return json.dumps([str(error), repr(error), error.to_json()])


# ------------------------------------------------------------------------------------------- all mistakes at once


def test_mistakes_of_the_file_the_environment_and_the_arguments_are_reported_together(tmp_path: Path) -> None:
    path = a_file(tmp_path, "sample_step: 3\nframe_num: many\ngenerators:\n  wan2.1: {colour: red, steps: 2}\n")
    environ = {"REELWRIGHT_GPUS": "two", "REELWRIGHT_SIZ": "1x1", "REELWRIGHT_ENV": "{a: [}"}
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path, environ=environ, arguments={"codec": "h265", "wan2dir": "/x"})
    found = [caught.value, *caught.value.also]
    said = [error.message for error in found]
    starts = [f"{path}:1: there is no setting named 'sample_step'", f"{path}:2: frame_num: must be a whole number",
              f"{path}:4: generators.wan2.1: there is no setting named 'colour'",
              f"{path}:4: generators.wan2.1: there is no setting named 'steps'",
              "environment REELWRIGHT_SIZ: there is no setting", "environment REELWRIGHT_GPUS: gpus: must be a list",
              "environment REELWRIGHT_ENV:1", "argument: codec: must be 'h264' or 'av1'",
              "argument: there is no setting named 'wan2dir'"]  # fmt: skip
    for start in starts:
        assert any(text.startswith(start) for text in said), (start, said)
    assert len(said) == len(starts)
    assert all(error.advice for error in found)
    advice = {error.message.rpartition("named ")[2]: error.advice for error in found}
    assert (advice["'sample_step'"], advice["'wan2dir'"]) == ("Did you mean sample_steps?", "Did you mean wan2_dir?")
    assert [item["message"] for item in caught.value.to_json()["also"]] == said[1:]


def test_a_wrong_value_is_reported_although_a_stronger_source_says_something_else(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"config\.yaml:1: frame_num"):
        load_settings(a_file(tmp_path, "frame_num: many\n"), environ={}, arguments={"frame_num": 81})


@pytest.mark.parametrize(("size", "message"), [("big", "size: 'big' is not a size"), (5, "size: must be text, not 5")])
def test_a_wrong_size_is_said_once(size: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environ={}, arguments={"size": size})
    assert caught.value.message == f"argument: {message}"


def test_a_key_of_a_section_is_named_with_its_own_line_however_the_generator_is_spelled(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"config\.yaml:4: generators\.wan2\.1: sample_steps"):
        load_settings(a_file(tmp_path, "generators:\n  wan:\n    frame_num: 81\n    sample_steps: x\n"), environ={})


def test_what_can_be_read_is_read_beside_the_mistakes(tmp_path: Path) -> None:
    settings, mistakes = read_settings(
        a_file(tmp_path, "sample_steps: x\nframe_num: 33\nfoo: 1\nframe_num: 9\n"), environ={}
    )
    assert (settings.sample_steps, settings.frame_num, len(mistakes)) == (None, 33, 3)
    assert any("config.yaml:4: the key 'frame_num' is twice here, first in line 2" in str(error) for error in mistakes)


def test_a_file_that_is_no_yaml_is_reported_beside_the_mistakes_of_other_sources(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(a_file(tmp_path, "size: [1280\n"), environ={"REELWRIGHT_FRAME_NUM": "x"})
    assert [len(caught.value.also), "config.yaml" in caught.value.message] == [1, True]


def test_two_names_of_one_setting_that_say_different_things_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="mean the same"):
        load_settings(a_file(tmp_path, "generator: draft\ndefault_backend: wan2.1\n"), environ={})


# ------------------------------------------------------------------------------------------------------------ paths


def by_argument(key: str, value: Any) -> Settings:
    return load_settings(environ={}, arguments={key: value})


def by_environment(key: str, value: Any) -> Settings:
    return load_settings(environ={f"REELWRIGHT_{key.upper()}": json.dumps(value) if key == "lora" else value})


def by_mapping(key: str, value: Any) -> Settings:
    return settings_from_mapping({key: value}, generator="diffusers")


def by_section(key: str, value: Any) -> SharedSettings:
    return settings_from_mapping({"generators": {"diffusers": {key: value}}}, generator=None).for_generator("diffusers")


def by_file(key: str, value: Any) -> Settings:
    Path("here.yaml").write_text(json.dumps({key: value}))
    return load_settings(Path("here.yaml"), environ={})


def by_section_of_a_file(key: str, value: Any) -> SharedSettings:
    Path("here.yaml").write_text(json.dumps({"generators": {"diffusers": {key: value}}}))
    return load_settings(Path("here.yaml"), environ={}).for_generator("diffusers")


def by_assignment(key: str, value: Any) -> Settings:
    text = value if isinstance(value, str) else json.dumps(value)
    return load_settings(environ={}, arguments=dict([parse_assignment(f"{key}={text}")]))


def by_constructor(key: str, value: Any) -> Settings:
    return Settings(**{key: value})


WAYS = [
    by_argument, by_assignment, by_environment, by_file, by_mapping, by_section, by_section_of_a_file, by_constructor,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("key", PATHS)
def test_a_relative_path_is_relative_to_where_the_user_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[[str, Any], Settings], key: str
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = way(key, "models/../models/here")
    monkeypatch.chdir("/")
    anchored = tmp_path / "models/../models/here"
    assert getattr(settings.flat, key) == ((Lora(anchored),) if key == "lora" else anchored)


@pytest.mark.parametrize("way", WAYS)
def test_every_form_of_a_lora_is_relative_to_where_the_user_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[[str, Any], Settings]
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = way("lora", ["a.safetensors", {"path": "x/b.safetensors", "scale": 0.5}])
    monkeypatch.chdir("/")
    assert settings.lora == (Lora(tmp_path / "a.safetensors"), Lora(tmp_path / "x/b.safetensors", 0.5))


def test_a_path_object_of_a_dict_is_anchored_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert settings_from_mapping({"wan2_dir": Path("Wan2.1")}, generator=None).wan2_dir == tmp_path / "Wan2.1"


@pytest.mark.parametrize("way", WAYS)
def test_a_tilde_is_the_home_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[[str, Any], Settings]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert way("weights", "~/weights").weights == tmp_path / "weights"


def test_a_path_of_the_file_lies_beside_the_file_wherever_the_user_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf").mkdir()
    a_file(tmp_path / "conf", "wan2_dir: Wan2.1\ngenerators: {diffusers: {lora: [a.safetensors], weights: w}}\n")
    monkeypatch.chdir(tmp_path)
    settings = load_settings(Path("conf/config.yaml"), environ={})
    assert settings.wan2_dir == tmp_path / "conf/Wan2.1"
    own = settings.for_generator("diffusers")
    assert isinstance(own, DiffusersSettings)
    assert (own.lora, own.weights) == ((Lora(tmp_path / "conf/a.safetensors"),), tmp_path / "conf/w")


def test_values_of_env_are_left_as_they_are() -> None:
    assert by_argument("env", {"A": "./x", "B": "~/y"}).env == {"A": "./x", "B": "~/y"}


def test_the_name_of_a_command_is_looked_up_where_no_such_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "python3.11"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent))
    monkeypatch.chdir(tmp_path)
    assert by_argument("python", "python3.11").python == command
    (tmp_path / "python3.11").touch()
    assert by_argument("python", "python3.11").python == tmp_path / "python3.11"


@pytest.mark.parametrize("value", ["~nobody-of-this-name/x", "a\0b"])
def test_a_path_that_cannot_be_one_is_a_mistake_of_its_key(value: str) -> None:
    with pytest.raises(ConfigurationError, match="weights: "):
        by_argument("weights", value)


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to nothing"])
def test_a_users_settings_that_are_no_file_are_refused_and_not_overlooked(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "reelwright" / "config.yaml"
    path.parent.mkdir()
    made: dict[str, Callable[[], None]] = {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "link to nothing": lambda: path.symlink_to("gone"),
    }
    made[kind]()
    with pytest.raises(VideoGenerationError, match=r"config\.yaml cannot be read") as caught:
        load_settings(environ={"XDG_CONFIG_HOME": str(tmp_path)})
    assert caught.value.code == "INPUT"


@pytest.mark.parametrize("name", ["XDG_STATE_HOME", "XDG_CONFIG_HOME"])
def test_a_relative_xdg_folder_counts_as_not_set(name: str) -> None:
    assert load_settings(environ={name: "relative"}).state_dir.is_absolute()


# ------------------------------------------------------------------------------------------------------ precedence

FLAT, ENV, ARGUMENT = "sample_steps: 1\n", {"REELWRIGHT_SAMPLE_STEPS": "2"}, {"sample_steps": 3}
SECTION = "generators: {wan2.1: {sample_steps: 4}}\n"
ENV_SECTION = {"REELWRIGHT_GENERATORS": "{wan2.1: {sample_steps: 5}}"}
ARGUMENT_SECTION: dict[str, Any] = {"generators": {"wan2.1": {"sample_steps": 6}}}


@pytest.mark.parametrize(
    ("file", "environ", "arguments", "steps"),
    [
        (FLAT + SECTION, {}, {}, 4),
        (SECTION, ENV, {}, 2),
        (SECTION, {}, ARGUMENT, 3),
        (FLAT, ENV_SECTION, {}, 5),
        (SECTION, ENV_SECTION, {}, 5),
        (SECTION, {**ENV, **ENV_SECTION}, {}, 5),
        (SECTION, ENV_SECTION, ARGUMENT, 3),
        (SECTION, {**ENV, **ENV_SECTION}, ARGUMENT_SECTION, 6),
        (SECTION, ENV, {**ARGUMENT, **ARGUMENT_SECTION}, 6),
        (FLAT, {}, {}, 1),
    ],
)
def test_a_section_beats_its_own_source_and_weaker_ones_and_no_stronger_one(
    tmp_path: Path, file: str, environ: dict[str, str], arguments: dict[str, Any], steps: int
) -> None:
    settings = load_settings(a_file(tmp_path, file), environ=environ, arguments=arguments)
    assert settings.for_generator("wan2.1").sample_steps == steps
    assert settings.for_generator("hunyuan").sample_steps in (None, 1, 2, 3)


@pytest.mark.parametrize(
    ("text", "arguments", "chosen"),
    [
        ("gpus: [0, 1]", {"gpu_count": 1}, ((0, 1), 1)),  # one of the two
        ("gpus: [0, 1]", {"gpu_count": 4}, (None, 4)),
        ("gpu_count: 4", {"gpus": [2]}, ((2,), None)),
        ("generators: {wan2.1: {gpu_count: 4}}", {"gpus": [2]}, ((2,), None)),
        ("generators: {wan2.1: {gpus: [0, 1]}}", {"gpu_count": 4}, (None, 4)),
        ("gpus: [0, 1]\ngpu_count: 4", {}, ((0, 1), 4)),  # the plan reports it
    ],
)
def test_a_list_and_a_number_of_gpus_that_contradict_each_other_are_what_the_stronger_source_says(
    tmp_path: Path, text: str, arguments: dict[str, Any], chosen: tuple[Any, Any]
) -> None:
    settings = load_settings(a_file(tmp_path, f"{text}\n"), environ={}, arguments=arguments).for_generator("wan2.1")
    assert (settings.gpus, settings.gpu_count) == chosen


def test_sections_of_several_sources_are_one_section(tmp_path: Path) -> None:
    settings = load_settings(
        a_file(tmp_path, "generators: {wan2.1: {sample_steps: 4, frame_num: 33}, hunyuan: {frame_num: 61}}\n"),
        environ=ENV_SECTION,
    )
    own = settings.for_generator("wan2.1")
    assert (own.sample_steps, own.frame_num, settings.for_generator("hunyuan").frame_num) == (5, 33, 61)
    assert own.origin("sample_steps") == "environment REELWRIGHT_GENERATORS (generators.wan2.1)"


@pytest.mark.parametrize(
    ("environ", "arguments"), [({}, {"timeout": None}), ({"REELWRIGHT_TIMEOUT": "null"}, {}), ({}, {"timeout": 5})]
)
def test_null_in_a_stronger_source_takes_a_value_back(
    tmp_path: Path, environ: dict[str, str], arguments: dict[str, Any]
) -> None:
    settings = load_settings(a_file(tmp_path, "timeout: 60\n"), environ=environ, arguments=arguments)
    assert settings.timeout == arguments.get("timeout")


@pytest.mark.parametrize("variable", ["WAN", "WAN21", "WAN2_1"])
def test_one_key_of_a_section_has_a_variable_and_an_assignment_of_its_own(variable: str) -> None:
    key, value = parse_assignment("generators.wan.size=832x480")
    name = f"REELWRIGHT_GENERATORS__{variable}__SAMPLE_STEPS"
    settings, _ = read_settings(environ={name: "9"}, arguments={key: value}, options={key: "--set"})
    own = settings.for_generator("wan2.1")
    assert (own.sample_steps, own.size) == (9, "832x480")
    assert own.origin("sample_steps") == f"environment {name} (generators.wan2.1)"
    assert own.origin("size") == "--set (generators.wan2.1)"
    assert settings.for_generator("hunyuan").sample_steps is None


@pytest.mark.parametrize("spelled", ["wan", "wan21", "Wan2.1"])
def test_other_spellings_of_a_generator_name_its_section_too(tmp_path: Path, spelled: str) -> None:
    settings = load_settings(a_file(tmp_path, f"generators: {{{spelled}: {{frame_num: 33}}}}\n"), environ={})
    assert settings.for_generator("wan2.1").frame_num == 33


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("generators: {wan2.2: {frame_num: 33}}", "no generator named 'wan2.2'", "wan2.1"),
        ("generators: {hunyan: {frame_num: 33}}", "no generator named 'hunyan'", "hunyuan"),
        ("generators: {wan2.1: {generator: draft}}", "no setting named 'generator'", ""),
        ("generators: {wan2.1: 3}", "must be keys and values", ""),
        ("generators: [wan2.1]", "must be sections", ""),
    ],
)
def test_a_section_that_nobody_would_read_is_a_mistake(tmp_path: Path, text: str, words: str, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        load_settings(a_file(tmp_path, text), environ={})
    assert hint in caught.value.advice


def test_a_section_of_a_generator_that_is_not_installed_here_is_noted(tmp_path: Path) -> None:
    settings = load_settings(a_file(tmp_path, f"generators: {{studio: {{api_key: {SECRET}}}}}\n"), environ={})
    (note,) = settings.notes
    assert "generators.studio: no generator of that name is installed" in note
    assert SECRET not in note + repr(settings)


# --------------------------------------------------------------------------------------------- a plugin's own keys


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(install(tmp_path / "site")))


@pytest.mark.usefixtures("studio")
def test_a_plugins_section_holds_its_own_keys_beside_the_shared_ones(tmp_path: Path) -> None:
    path = a_file(tmp_path, "generators: {studio: {lens: 35, look: a.cube, grain: true, sample_steps: 9}}\n")
    settings = load_settings(path, environ={}, arguments={"generators": {"studio": {"takes": 3}}})
    own: Any = settings.for_generator("studio")
    assert type(own).__name__ == "StudioSettings"
    assert (own.lens, own.look, own.grain, own.takes, own.sample_steps) == (35, tmp_path / "a.cube", True, 3, 9)
    assert not hasattr(settings.for_generator("wan2.1"), "lens")
    assert own.for_generator("wan2.1").wan2_dir is None


@pytest.mark.usefixtures("studio")
@pytest.mark.parametrize(
    ("key", "words", "hint"),
    [
        ("lense: 35", "there is no setting named 'lense'", "lens"),
        ("sample_step: 3", "there is no setting named 'sample_step'", "sample_steps"),
        ("lens: wide", "lens: must be a number, not 'wide'", ""),
        ("lens: 900", "lens: must be less than or equal to 600", ""),
        ("wan2_dir: /x", "there is no setting named 'wan2_dir'", ""),
        ("lens: true", "lens: must be a number", ""),
        ("takes: 1.5", "takes: must be a whole number", ""),
        ("grain: 1", "grain: must be true or false", ""),
        ("look: [a]", "look: must be a path", ""),
        ("api_token: [a]", "api_token: must be text", ""),
    ],
)
def test_a_mistake_in_a_plugins_section_is_reported_with_its_line(
    tmp_path: Path, key: str, words: str, hint: str
) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        load_settings(a_file(tmp_path, f"generators:\n  studio:\n    {key}\n"), environ={})
    assert "config.yaml:3: generators.studio" in caught.value.message
    assert hint in caught.value.advice


_PLUGINS = """\
from dataclasses import replace
from pydantic import SecretStr, model_validator
from reelwright.config.settings import Settings
from reelwright.testing import backend

class Strict(Settings):
    lens: int = 1
    word: SecretStr = SecretStr("")

    @model_validator(mode="after")
    def _rule(self):
        if self.lens > 9:
            raise ValueError("a lens this long needs a tripod")
        return self

class Wanting(Settings):
    lens: int

STRICT = replace(backend, name="strict", settings=Strict)
WANTING = replace(backend, name="wanting", settings=Wanting)
ODD = replace(backend, name="odd", settings=dict)
NOTHING = 3
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site"
    add_distribution(
        folder, "own", "1.0", {name: f"own_plugins:{name.upper()}" for name in ("strict", "odd", "nothing", "wanting")}
    )
    add_distribution(folder, "rival", "1.0", {"strict2": "own_plugins:STRICT", "broken": "no_such_module:BACKEND"})
    (folder / "own_plugins.py").write_text(_PLUGINS)
    monkeypatch.syspath_prepend(str(folder))


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("odd", "are not a subclass of reelwright.Settings"),
        ("nothing", "is not a Backend of that name"),
        ("strict2", "is not a Backend of that name"),
        ("wanting", "have no default for lens"),
        ("broken", "cannot be loaded"),
        ("stric", "there is no generator named 'stric'"),
    ],
)
def test_a_package_that_provides_no_generator_is_refused_with_the_reason(name: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        load_backend(name)


@pytest.mark.usefixtures("plugins")
def test_a_section_of_a_broken_package_is_noted_and_a_rule_of_a_plugin_is_a_mistake(tmp_path: Path) -> None:
    settings = load_settings(a_file(tmp_path, "generators: {broken: {lens: 3}, strict: {lens: 9}}\n"), environ={})
    (note,) = settings.notes
    assert "generators.broken: the package that provides it cannot be loaded" in note
    with pytest.raises(ConfigurationError, match="strict: a lens this long needs a tripod"):
        load_settings(a_file(tmp_path, "generators: {strict: {lens: 10}}\n"), environ={})


@pytest.mark.usefixtures("plugins")
def test_a_plugins_settings_come_back_from_their_json_with_the_secret(tmp_path: Path) -> None:
    path = a_file(tmp_path, f"generators: {{strict: {{lens: 5, word: {SECRET}, size: null}}}}\n")
    own = load_settings(path, environ={}).for_generator("strict")
    assert (own.shown("word"), SECRET in repr(own)) == ("***", False)
    data = json.loads(json.dumps(own.to_json()))
    again: Any = Settings.from_json(data)
    assert (again.to_json(), again.word.get_secret_value()) == (own.to_json(), SECRET)
    with pytest.raises(ConfigurationError, match="schema 2"):
        Settings.from_json({**data, "schema": 2})


def test_settings_without_any_generator_still_have_sections() -> None:
    settings = SettingsLoader(SharedSettings).load(environ={}, arguments={"generators": {"mine": {"fps": 8}}})
    assert "generators.mine: no generator of that name is installed" in settings.notes[0]
    assert settings.for_generator("mine").fps is None
    assert SharedSettings(simulate_gpus=None, size=None).simulate_gpus is None


def test_the_section_of_an_existing_pipeline_file_is_read_from_a_mapping_too() -> None:
    settings = settings_from_mapping({"hunyuan_video": {"hunyuan_dir": "/h"}, "wan2_dir": "/w"}, generator="hunyuan")
    assert (settings.hunyuan_dir, settings.wan2_dir) == (Path("/h"), Path("/w"))


# --------------------------------------------------------------------------------------------------------- secrets

WRONG_ENV = [
    f"env: [{{A: {SECRET}}}]",
    f"env: {SECRET}",
    f"env: {{A: 1, B: {SECRET}}}",
    f"env: {{1A: {SECRET}}}",
    f"env: {{A: [{SECRET}]}}",
    f"generators: {{wan2.1: {{env: {{A: [{SECRET}]}}}}}}",
    f"generators: {{wan2.1: {{env: {SECRET}}}}}",
    f"generators: {{wan2.1: {SECRET}}}",
    f"generators: [{{env: {{A: {SECRET}}}}}]",
    f"generators: {SECRET}",
    f"evn: {{A: {SECRET}}}",
    f"generators: {{wan2.1: {{evn: {{A: {SECRET}}}}}}}",
]


@pytest.mark.parametrize("text", WRONG_ENV)
def test_a_mistake_beside_a_secret_does_not_repeat_the_secret(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(a_file(tmp_path, text), environ={})
    assert SECRET not in everything_said(caught.value)
    name, _, value = text.partition(": ")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environ={f"REELWRIGHT_{name.upper()}": value})
    assert SECRET not in everything_said(caught.value)


@pytest.mark.usefixtures("studio")
def test_what_is_shown_of_the_settings_holds_no_secret_and_everything_else(tmp_path: Path) -> None:
    section = f"{{env: {{TOKEN: {SECRET}}}, pass_phrase: {SECRET}, api_token: {SECRET}, lens: 35, look: a.cube}}"
    settings = load_settings(a_file(tmp_path, f"env: {{A: {SECRET}}}\ngenerators: {{studio: {section}}}\n"), environ={})
    shown = {key: settings.shown(key) for key in Settings.model_fields}
    assert SECRET not in json.dumps(shown)
    assert shown["env"] == {"A": "***"}
    assert shown["generators"]["studio"] == {
        "env": {"TOKEN": "***"}, "pass_phrase": "***", "api_token": "***", "lens": 35, "look": str(tmp_path / "a.cube"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sample_steps: 010", "2: sample_steps: YAML reads this number differently"),
        ("timeout: 1:30", "timeout: YAML reads this number differently"),
        ("wan2_dir: /models/wan #2", "wan2_dir: what follows # on this line is a comment"),
        ("env: {TOKEN: abc #hidden-word", "begins a comment"),
    ],
)
def test_what_yaml_reads_otherwise_in_a_settings_file_is_a_mistake(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "settings.yaml").write_text(f"frame_num: 81  # frames\n{line}\n")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(tmp_path / "settings.yaml", environ={})
    assert said in caught.value.message
    assert "hidden-word" not in str(caught.value)
