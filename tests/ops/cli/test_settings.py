"""Promises of the settings: defaults, file, environment, flags in rising order; errors name the source."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from prectr.model.config import MODEL_NAMES, PretrainConfig, TrainerConfig
from prectr.ops.cli.main import app
from prectr.ops.commands.pipeline.settings import settings
from prectr.ops.settings.fields import FIELDS, read_value
from prectr.ops.settings.loader import Settings, describe, environment_variable, load_settings
from prectr.ops.settings.reference import SettingRow, markdown_text, toml_text
from prectr.state.errors import ConfigError, UsageError
from prectr.state.setting import Setting, SettingField, fields_of, format_duration
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
    path.write_text('partitions = 2\nbatch_span = 10\nhalf_lives = ["12h", 86400]\nwithout = ["a"]\nhidden = [8]\n')
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
    assert load(environ, toml).pipeline.half_lives == (43_200.0, 86_400.0)
    assert load(environ, toml).trainer.without == ("a",)


def test_the_environment_can_name_the_file_and_a_flag_names_another(toml: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("partitions = 7")
    assert load({"PRECTR_CONFIG": str(toml)}).pipeline.partitions == 2
    assert load({"PRECTR_CONFIG": str(toml)}, other).pipeline.partitions == 7
    assert load({"PRECTR_DEBUG": "1", "PATH": "/bin"}) == load()


def another_value(field: SettingField) -> str:
    """A valid value of a setting, as text, that is not its default."""
    if field.setting.choices:
        return next((choice for choice in field.setting.choices if choice != field.default), "lexical")
    if field.kind in (int, float):
        assert isinstance(field.default, int | float)
        higher = field.kind(field.default + 1)
        return str(higher if field.setting.allows(higher) else field.setting.le)
    return {
        "without": "x,y",
        "click_actions": "click, purchase",
        "hidden": "3, 4",
        "encoder": "folder",
        "half_lives": "1h, 2h",
        "item_features": "rating, stock",
        "page_features": "none",
        "context_features": "device",
    }[field.name]


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_every_setting_has_an_environment_variable_and_a_flag_that_change_it(field: SettingField) -> None:
    value = another_value(field)
    from_environment = describe(load({environment_variable(field.name): value}))
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


@pytest.mark.parametrize(
    ("text", "half_lives"),
    [("6h,1d", (21_600, 86_400)), (" 90 , 10m ", (90, 600)), ("1ms", (0.001,)), ("1,2,3,4,5,6,7,8", range(1, 9))],
)
def test_a_list_of_durations_is_read_like_each_of_them(text: str, half_lives: Sequence[float]) -> None:
    assert load(half_lives=text).pipeline.half_lives == tuple(half_lives)


@pytest.mark.parametrize("text", ["", ",", "1d,6h", "6h,6h", "1,2,3,4,5,6,7,8,9", "6h;1d", "1h,0"])
def test_half_lives_are_one_to_eight_rising_durations(text: str) -> None:
    assert error_of(half_lives=text).startswith(f"half_lives: {text!r} (--half-lives)")


def test_a_list_of_durations_out_of_order_says_so() -> None:
    assert error_of(half_lives="1d,6h") == (
        "half_lives: '1d,6h' (--half-lives) is out of range: it must be at least 1ms, at most 36600d, "
        "1 to 8 of them, rising"
    )


@pytest.mark.parametrize("text", ["", "x", "10 weeks", "1,5", "nan", "inf", "1e", "--1", "1m30s", "0x10"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    message = error_of({"PRECTR_ATTRIBUTION_WINDOW": text})
    assert message.startswith(f"attribution_window: {text!r} (environment variable PRECTR_ATTRIBUTION_WINDOW)")
    assert "ms, s, m, h or d" in message


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("partitions", 0, "at least 1"),
        ("partitions", 1025, "at least 1, at most 1,024"),
        ("partitions", 2.5, "wrong type"),
        ("partitions", True, "wrong type"),
        ("partitions", "2.5", "not a whole number"),
        ("batch_pages", "many", "not a whole number"),
        ("batch_span", 0, "at least 1ms"),
        ("batch_span", float("nan"), "out of range"),
        ("batch_span", float("inf"), "out of range"),
        ("batch_span", "1e300", "out of range"),
        ("allowed_lateness", -1, "at least 0"),
        ("embedding_lr", "fast", "not a number"),
        ("hidden", "64,0", "at least 1"),
        ("hidden", "64,x", "not a whole number"),
        ("hidden", 64, "wrong type"),
        ("device", "tpu", "is not one of auto, cpu, cuda"),
        ("labeller", "oracle", "is not one of lexical"),
        ("without", 3, "wrong type"),
        ("model", 3, "wrong type"),
        ("seed", -1, "at least 0"),
        ("seed", 10**400, "out of range"),
        ("seed", "9" * 5000, "not a whole number"),
        ("dense_lr", 10**400, "out of range"),
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
    assert "the nearest is half_lives" in error_of(half_live=3)
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


NUMERIC = [field for field in FIELDS.values() if field.kind in (int, float, tuple[int, ...], tuple[float, ...])]


@pytest.mark.parametrize("field", [*NUMERIC, *fields_of(PretrainConfig).values()], ids=lambda field: field.name)
def test_every_number_has_a_range_that_holds_its_default_and_nothing_infinite(field: SettingField) -> None:
    setting = field.setting
    assert setting.ge is not None
    assert setting.le is not None
    assert setting.allows(field.default)
    of = (lambda number: (number,)) if isinstance(field.default, tuple) else (lambda number: number)
    assert setting.allows(of(setting.ge))
    assert setting.allows(of(setting.le))
    outside = (setting.ge - 1, setting.le * 2, float("nan"), float("inf"), float("-inf"))
    assert not any(setting.allows(of(number)) for number in outside)


@pytest.mark.parametrize(
    "name",
    ["position_ftrl_alpha", "wide_ftrl_alpha", "ftrl_alpha", "ftrl_beta", "smoothing", "wide_prior", "slope_prior"],
)
def test_a_zero_that_something_is_divided_by_is_refused(name: str) -> None:
    assert f"{name}: '0' (environment variable PRECTR_{name.upper()}) is out of range" in error_of(
        {f"PRECTR_{name.upper()}": "0"}
    )


@pytest.mark.parametrize(("name", "text"), [("dense_lr", "1e6"), ("ftrl_alpha", "1e-300")])
def test_a_number_that_training_turns_into_infinity_is_refused(name: str, text: str) -> None:
    assert "is out of range" in error_of({f"PRECTR_{name.upper()}": text})


def test_a_duration_that_rounds_to_no_millisecond_is_refused() -> None:
    for name in ("attribution_window", "half_lives", "user_ttl", "batch_span", "max_clock_skew"):
        assert f"{name}: '0.0001ms' (--{name.replace('_', '-')}) is out of range" in error_of(**{name: "0.0001ms"})


@pytest.mark.parametrize("field", NUMERIC, ids=lambda field: field.name)
@pytest.mark.parametrize("text", ["inf", "-inf", "nan"])
def test_toml_that_is_not_finite_is_refused(field: SettingField, text: str, tmp_path: Path) -> None:
    path = tmp_path / "prectr.toml"
    path.write_text(f"{field.name} = {f'[{text}]' if isinstance(field.default, tuple) else text}")
    assert error_of(file=path).startswith(f"{field.name}: ")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PRECTR_SERVICE_HOST", "10.0.0.1"),
        ("PRECTR_SERVICE_PORT", "9400"),
        ("PRECTR_SERVICE_PORT_METRICS", "9400"),
        ("PRECTR_PORT", "tcp://10.0.0.1:9400"),
        ("PRECTR_PORT_9400_TCP", "tcp://10.0.0.1:9400"),
        ("PRECTR_PORT_9400_TCP_ADDR", "10.0.0.1"),
        ("PRECTR_PORT_9400_TCP_PORT", "9400"),
        ("PRECTR_PORT_9400_TCP_PROTO", "tcp"),
        ("PRECTR_MONITOR_SERVICE_HOST", "10.0.0.1"),
        ("PRECTR_MONITOR_PORT", "tcp://10.0.0.1:9480"),
    ],
)
def test_variables_that_kubernetes_injects_for_a_service_are_ignored(variable: str, value: str) -> None:
    assert load({variable: value}) == load()


@pytest.mark.parametrize("variable", ["PRECTR_PORT", "PRECTR_METRICS_PORT", "PRECTR_SERVICE", "PRECTR_SEEED"])
def test_a_variable_that_is_neither_a_setting_nor_injected_is_refused(variable: str) -> None:
    assert f"there is no setting for the environment variable {variable}; " in error_of({variable: "9400"})


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.5, 1.0, 90.0, 3600.0, 5400.0, 86400.0, 1e7, 0.1 + 0.2])
def test_a_duration_is_written_as_it_is_read(seconds: float) -> None:
    assert read_value(FIELDS["allowed_lateness"], format_duration(seconds), "") == seconds


def test_the_source_of_every_value_that_is_not_the_default_is_known(toml: Path) -> None:
    sources = load({"PRECTR_PARTITIONS": "3"}, toml, seed=1).sources
    assert sources == {
        "partitions": "environment variable PRECTR_PARTITIONS",
        "batch_span": str(toml),
        "half_lives": str(toml),
        "without": str(toml),
        "hidden": str(toml),
        "seed": "--seed",
    }


def test_a_field_without_a_declaration_or_with_a_name_that_is_taken_is_a_mistake() -> None:
    @dataclasses.dataclass
    class Bare:
        size: int = 1

    @dataclasses.dataclass
    class Same:
        seed: Annotated[int, Setting(help="Another seed.")] = 1

    with pytest.raises(TypeError, match=r"Bare\.size declares no Setting"):
        fields_of(Bare)
    with pytest.raises(TypeError, match="two settings have the name seed"):
        fields_of(TrainerConfig, Same)


def test_the_configuration_page_is_up_to_date() -> None:
    page = Path(__file__).parents[3] / "docs" / "configuration.md"
    assert page.read_text() == markdown_text(), "run: prectr settings --markdown docs/configuration.md"


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"batch_span": "1d", "hidden": "8", "without": "debias,incentive", "encoder": 'a "b"\\c\n\x7f é', "seed": 7},
        {"attribution_window": 0.1 + 0.2, "half_lives": f"1ms,{1e9 / 3}", "dense_lr": 1e-5, "ftrl_l1": 1e-7},
    ],
)
def test_settings_written_as_toml_load_back_to_the_same(overrides: dict[str, object], tmp_path: Path) -> None:
    written = load(**overrides)
    path = tmp_path / "prectr.toml"
    path.write_text(toml_text(written), encoding="utf-8")
    assert load(file=path) == written
    assert set(load(file=path).sources) == set(FIELDS)


def test_the_command_shows_each_value_and_its_source(
    toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRECTR_SEED", "5")
    monkeypatch.delenv("COLUMNS", raising=False)
    settings(markdown=None, toml=None, config=toml, json=tmp_path / "settings.json", dense_lr="0.01")
    rows = {row.name: row for row in read_rows(tmp_path / "settings.json")}
    assert list(rows) == list(FIELDS)
    assert (rows["seed"].value, rows["seed"].default) == (5, 0)
    assert (rows["dense_lr"].value, rows["dense_lr"].source) == (0.01, "--dense-lr")
    assert rows["seed"].source == "environment variable PRECTR_SEED"
    half_lives = rows["half_lives"]
    assert (half_lives.value, half_lives.default) == ([43_200.0, 86_400.0], [21_600.0, 86_400.0, 604_800.0])
    assert (half_lives.unit, half_lives.source) == ("s", str(toml))
    assert half_lives.allowed == "1ms – 36600d each, 1 – 8 of them, rising"
    assert (rows["user_ttl"].value, rows["user_ttl"].allowed) == (90 * 86_400.0, "1ms – 36600d")
    assert (rows["hidden"].value, rows["hidden"].default) == ([8], [64, 32])
    assert (rows["model"].source, rows["model"].choices) == ("default", list(MODEL_NAMES))
    assert rows["labeller"].environment_variable == "PRECTR_LABELLER"
    table = " ".join(capsys.readouterr().out.split())
    assert all(name in table for name in FIELDS)
    assert "12h,1d │ 6h,1d,7d │ 1ms – 36600d each" in table


def test_the_command_writes_files_instead_of_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings(config=None, json=None, toml=tmp_path / "prectr.toml", markdown=tmp_path / "page.md", batch_span="1d")
    assert load(file=tmp_path / "prectr.toml") == load(batch_span=86_400)
    assert (tmp_path / "page.md").read_text() == markdown_text()
    assert capsys.readouterr().out == ""


def read_rows(path: Path) -> list[SettingRow]:
    return msgspec.json.decode(path.read_bytes(), type=dict[str, list[SettingRow]])["settings"]


def test_a_flag_of_a_setting_shows_its_meaning_default_and_range(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        app(["settings", "--help"])
    out = " ".join(word for word in capsys.readouterr().out.split() if word != "│")
    assert "--hidden LIST Widths of the hidden layers of the deep part. Default 64,32; 1 – 65,536 each." in out
