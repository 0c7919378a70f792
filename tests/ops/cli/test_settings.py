"""Promises of the settings: defaults, file, environment, flags in rising order; errors name the source."""

import dataclasses
from pathlib import Path

import msgspec
import pytest

from prectr.model.config import TrainerConfig
from prectr.ops.settings.loader import Settings, describe, load_settings
from prectr.state.errors import ConfigError, UsageError
from prectr.stream.config import PipelineConfig


def load(environ: dict[str, str] | None = None, file: Path | None = None, **flags: object) -> Settings:
    return load_settings(file, flags, environ or {})


def error_of(environ: dict[str, str] | None = None, file: Path | None = None, **flags: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(environ, file, **flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "prectr.toml"
    path.write_text('partitions = 2\nbatch_span = 10\nhalf_life = "12h"\nwithout = ["a"]\nhidden = [8]\n')
    return path


def test_without_anything_the_defaults_hold() -> None:
    assert load() == Settings(pipeline=PipelineConfig(), trainer=TrainerConfig())


def test_each_source_replaces_the_one_before(toml: Path) -> None:
    environ = {"PRECTR_PARTITIONS": "3", "PRECTR_BATCH_SPAN": "20"}
    assert load(file=toml).pipeline.partitions == 2
    assert load(environ, toml).pipeline.partitions == 3
    assert load(environ, toml, partitions=5).pipeline.partitions == 5
    assert load(environ, toml, partitions=None).pipeline.partitions == 3
    assert load(environ, toml).trainer.batch_span == 20.0
    assert load(environ, toml).pipeline.half_life == 43_200.0
    assert load(environ, toml).trainer.without == ("a",)


def test_the_environment_can_name_the_file_and_a_flag_names_another(toml: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("partitions = 7")
    assert load({"PRECTR_CONFIG": str(toml)}).pipeline.partitions == 2
    assert load({"PRECTR_CONFIG": str(toml)}, other).pipeline.partitions == 7
    assert load({"PRECTR_DEBUG": "1", "PATH": "/bin"}) == load()


@pytest.mark.parametrize("config", [PipelineConfig, TrainerConfig])
def test_every_setting_has_an_environment_variable_and_a_flag_that_change_it(config: type) -> None:
    other = {"labeller": "lexical", "device": "cpu", "model": "lr", "without": "x,y", "hidden": "3, 4"}
    other |= {
        "level_source": "logged",
        "encoder": "folder",
        "debias": "prior_adjustment",
        "encoder_share": "0.5",
        "exposure": "off",
    }
    for field in dataclasses.fields(config):
        default = getattr(config(), field.name)
        value = other.get(field.name) or str(type(default)(default + 1))
        from_environment = describe(load({f"PRECTR_{field.name.upper()}": value}))
        assert from_environment == describe(load(**{field.name: value}))
        changed = {name for name, old in describe(load()).items() if from_environment[name] != old}
        assert changed == ({field.name} if field.name != "labeller" else set())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1d", 86400),
        ("10m", 600),
        ("2h", 7200),
        ("500ms", 0.5),
        ("90s", 90),
        ("90", 90),
        (" 1.5 h ", 5400),
        ("1e3", 1000),
    ],
)
def test_durations_are_seconds_or_have_a_unit(text: str, seconds: float) -> None:
    assert load({"PRECTR_ATTRIBUTION_WINDOW": text}).pipeline.attribution_window == seconds
    assert load(attribution_window=text).pipeline.attribution_window == seconds


@pytest.mark.parametrize("text", ["", "x", "10 weeks", "1,5", "nan", "inf", "1e", "--1", "1m30s", "0x10"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    message = error_of({"PRECTR_ATTRIBUTION_WINDOW": text})
    assert message.startswith(f"attribution_window: {text!r} (environment variable PRECTR_ATTRIBUTION_WINDOW)")
    assert "ms, s, m, h or d" in message


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("partitions", 0, "at least 1"),
        ("partitions", 1025, "at most 1024"),
        ("partitions", 2.5, "wrong kind"),
        ("partitions", True, "wrong kind"),
        ("partitions", "2.5", "not a whole number"),
        ("batch_pages", "many", "not a whole number"),
        ("batch_span", 0, "more than 0"),
        ("batch_span", float("nan"), "out of range"),
        ("batch_span", float("inf"), "out of range"),
        ("batch_span", "1e300", "out of range"),
        ("allowed_lateness", -1, "at least 0"),
        ("embedding_lr", "fast", "not a number"),
        ("hidden", "64,0", "at least 1"),
        ("hidden", "64,x", "not a whole number"),
        ("hidden", 64, "wrong kind"),
        ("device", "tpu", "none of auto, cpu, cuda"),
        ("labeller", "oracle", "none of lexical"),
        ("without", 3, "wrong kind"),
        ("model", 3, "wrong kind"),
        ("seed", -1, "at least 0"),
    ],
)
def test_a_value_of_a_wrong_type_or_out_of_range_is_refused_with_its_source(key: str, value: object, what: str) -> None:
    message = error_of(**{key: value})
    assert message.startswith(f"{key}: {value!r} (--{key.replace('_', '-')}) ")
    assert what in message


def test_an_unknown_key_names_the_nearest_one(tmp_path: Path) -> None:
    path = tmp_path / "prectr.toml"
    path.write_text("batch_pagse = 3")
    assert error_of(file=path) == f"{path}: there is no setting 'batch_pagse'; the nearest is batch_pages"
    assert "the nearest is PRECTR_BATCH_PAGES" in error_of({"PRECTR_BATCHPAGES": "3"})
    assert "the nearest is PRECTR_DEBUG" in error_of({"PRECTR_DEBG": "3"})
    assert "the nearest is half_life" in error_of(half_live=3)
    assert "attribution_window" in error_of(xyzzy=1)


def test_an_error_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "prectr.toml"
    for text, what in (
        ("partitions = 0", f"partitions: 0 ({path}) is out of range"),
        ("[trainer]\nseed = 1", "settings have no sections"),
        ("partitions", "is not TOML"),
        ("partitions = 1\npartitions = 2", "is not TOML"),
    ):
        path.write_text(text)
        message = error_of(file=path)
        assert str(path) in message
        assert what in message
    path.write_bytes(b"\xff")
    assert "is not TOML" in error_of(file=path)
    assert "cannot be read: No such file" in error_of(file=tmp_path / "missing.toml")
    assert "cannot be read" in error_of(file=tmp_path)


def test_a_description_names_every_setting_and_can_be_written_as_json() -> None:
    described = msgspec.json.decode(msgspec.json.encode(describe(load(without="a,b"))))
    assert described["without"] == ["a", "b"]
    assert set(described) == {
        field.name for kind in (PipelineConfig, TrainerConfig) for field in dataclasses.fields(kind)
    }


def test_a_wrong_setting_is_wrong_use() -> None:
    assert issubclass(ConfigError, UsageError)
