"""The batch span of a replay that was not given one: by how dense the log is, and told."""

import json
import logging
from pathlib import Path

import pytest

import prectr
from prectr.ops.settings.loader import Settings, load_settings
from prectr.ops.training.batch_span import settle_batch_span
from prectr.state.errors import UsageError
from testkit.command import prectr as command
from testkit.command import write_log
from tests.kit.models.encoder import tiny_encoder
from tests.kit.stages.events import MINUTE, SECOND, T, page

SMALL: dict[str, object] = {"embedding_rows": 4096, "wide_rows": 4096, "partitions": 1}


def _log(folder: Path, gap: int, name: str = "log.jsonl", start: int = 0) -> str:
    lines = [page(f"r{number}", f"u{number % 5}", T + number * gap) for number in range(start, start + 40)]
    return str(write_log(folder / name, lines))


def _settled(log: str, run_dir: Path, models: list[str], **given: object) -> Settings:
    return settle_batch_span(load_settings(None, given, environ={}), [log], run_dir, models, restart=False)


@pytest.mark.parametrize("model", ["prectr", "prectr-v2"])
def test_a_sparse_log_is_learned_from_in_whole_batches_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, model: str
) -> None:
    with caplog.at_level(logging.INFO):
        settled = _settled(_log(tmp_path, 30 * SECOND), tmp_path / "run", ["lr", model])
    assert settled.trainer.batch_span == 86_400
    (told,) = caplog.messages
    assert told.startswith("batch_span is 1d, chosen since the log has 2 pages a minute")
    assert "A live trainer has 1m unless told otherwise" in told


def test_a_dense_log_keeps_the_span_of_a_live_trainer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Sixteen pages a minute fill a batch of 16; fifteen do not."""
    with caplog.at_level(logging.INFO):
        assert _settled(_log(tmp_path, MINUTE // 16), tmp_path / "run", ["prectr-v2"]).trainer.batch_span == 60
    assert not caplog.messages
    assert _settled(_log(tmp_path, MINUTE // 15), tmp_path / "run", ["prectr-v2"]).trainer.batch_span == 86_400
    assert (
        _settled(_log(tmp_path, MINUTE // 15), tmp_path / "run", ["prectr-v2"], batch_pages=15).trainer.batch_span == 60
    )


def test_models_that_read_no_text_keep_it_too_and_the_gain_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        settled = _settled(_log(tmp_path, 30 * SECOND), tmp_path / "run", ["lr", "wide-deep+"])
    assert settled.trainer.batch_span == 60
    (told,) = caplog.messages
    assert "with --batch-span 1d" in told
    # What makes them read text makes each step dear.
    log = _log(tmp_path, 30 * SECOND)
    assert _settled(log, tmp_path / "run", ["lr"], level_source="inferred").trainer.batch_span == 86_400


@pytest.mark.parametrize("given", [{"batch_span": "1m"}, {"batch_span": "90s"}])
def test_a_span_that_was_given_is_taken(tmp_path: Path, given: dict[str, object]) -> None:
    wanted = load_settings(None, given, environ={})
    assert _settled(_log(tmp_path, 30 * SECOND), tmp_path / "run", ["prectr-v2"], **given) == wanted


def test_a_replay_without_models_has_no_batches(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert _settled(_log(tmp_path, 30 * SECOND), tmp_path / "run", []).trainer.batch_span == 60
    assert not caplog.messages


def test_a_run_keeps_the_span_that_it_began_with(tmp_path: Path) -> None:
    """Its second file is dense: by itself it would have been learned from with another span."""
    small: dict[str, object] = {**SMALL, "model": "prectr-v2", "encoder": str(tiny_encoder())}
    first, second = _log(tmp_path, 30 * SECOND), _log(tmp_path, SECOND, "dense.jsonl", start=1200)
    report = prectr.replay(first, tmp_path / "run", flush=False, **small)  # type: ignore[arg-type]
    assert report.config["batch_span"] == 86_400
    report = prectr.replay([first, second], tmp_path / "run", **small)  # type: ignore[arg-type]
    assert (report.pages, report.config["batch_span"]) == (80, 86_400)
    with pytest.raises(UsageError, match=r"batch_span is 60\.0, was 86400\.0"):
        prectr.replay([first, second], tmp_path / "run", batch_span=60, **small)  # type: ignore[arg-type]
    report = prectr.replay(second, tmp_path / "run", restart=True, **small)  # type: ignore[arg-type]
    assert report.config["batch_span"] == 60


def test_the_weights_are_those_of_the_span_that_is_in_the_report(tmp_path: Path) -> None:
    log = _log(tmp_path, 30 * SECOND)
    small: dict[str, object] = {**SMALL, "model": "prectr-v2", "encoder": str(tiny_encoder())}

    def weights(run: str, **given: object) -> str | None:
        return prectr.replay(log, tmp_path / run, **small, **given).weights_sha256  # type: ignore[arg-type]

    chosen = weights("chosen")
    assert chosen == weights("a-day", batch_span="1d")
    assert chosen != weights("a-minute", batch_span="1m")


def test_the_command_says_what_it_chose(tmp_path: Path) -> None:
    flags = ["--run-dir", tmp_path / "run", "--partitions", "1", "--json", tmp_path / "out.json"]
    done = command("replay", _log(tmp_path, 30 * SECOND), *flags, PRECTR_ENCODER=str(tiny_encoder()))
    assert done.returncode == 0, done.stderr
    assert "batch_span is 1d, chosen since the log has 2 pages a minute" in done.stderr
    config = json.loads((tmp_path / "out.json").read_bytes())["config"]
    assert (config["model"], config["batch_span"]) == ("prectr-v2", 86_400)
