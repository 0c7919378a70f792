"""A replay whose loss is not finite names the pages, keeps its last checkpoint, and can be resumed."""

from pathlib import Path

import pytest
import torch

from prectr.model.features.batch import Batch
from prectr.model.models.online_model import ForwardOutput
from prectr.model.models.prectr.model import Prectr
from prectr.model.training.trainer import Trainer
from prectr.ops.settings.loader import Settings
from prectr.ops.training.replay import run_replay
from prectr.state.errors import TrainingError
from prectr.stream.config import PipelineConfig
from prectr.stream.replay.run_checkpoint import list_checkpoints
from testkit.command import write_log
from tests.kit.models.examples import small_config
from tests.kit.stages.events import MINUTE, T, click, page

SETTINGS = Settings(pipeline=PipelineConfig(partitions=1), trainer=small_config(model="prectr-v2", batch_span=1e6))


def _files(folder: Path) -> list[str]:
    """Eight pages, then eight more: two batches of four each."""
    logs = []
    for part in range(2):
        lines = []
        for number in range(8 * part, 8 * part + 8):
            ts = T + number * 10 * MINUTE
            lines += [page(f"r{number}", f"u{number % 3}", ts), click(f"r{number}", f"u{number % 3}", ts + 5)]
        logs.append(str(write_log(folder / f"log{part}.jsonl", lines)))
    return logs


def test_a_replay_keeps_its_last_checkpoint_and_resumes_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that pages close: the partition settles on a time with its first record.
    monkeypatch.setattr("prectr.stream.join.event_clock.SETTLING_RECORDS", 1)
    logs = _files(tmp_path)
    uninterrupted, _ = run_replay(logs, tmp_path / "uninterrupted", SETTINGS, models=["prectr-v2"])
    run_replay(logs[:1], tmp_path / "run", SETTINGS, models=["prectr-v2"], flush=False)
    assert _resumed(tmp_path / "run").pages_trained == 4
    forward = Prectr.forward

    def poisoned(model: Prectr, batch: Batch) -> ForwardOutput:
        made = forward(model, batch)
        if "r9" in batch.request_ids:
            made.losses["monotonicity"] = made.losses["monotonicity"] * torch.nan
        return made

    with monkeypatch.context() as patch:
        patch.setattr(Prectr, "forward", poisoned)
        with pytest.raises(TrainingError, match=r"the monotonicity loss of a batch is nan.*'r8', 'r9', 'r10', 'r11'"):
            run_replay(logs, tmp_path / "run", SETTINGS, models=["prectr-v2"])
    # The batch before may have been saved since.
    assert _resumed(tmp_path / "run").pages_trained in (4, 8)
    resumed, _ = run_replay(logs, tmp_path / "run", SETTINGS, models=["prectr-v2"])
    assert resumed.weights_sha256 == uninterrupted.weights_sha256
    assert resumed.examples_sha256 == uninterrupted.examples_sha256


def _resumed(run_dir: Path) -> Trainer:
    trainer = Trainer(SETTINGS.trainer)
    trainer.load(list_checkpoints(run_dir / "checkpoints")[0] / "sinks" / "prectr-v2")
    return trainer
