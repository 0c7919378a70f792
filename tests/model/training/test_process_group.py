"""Several ranks that train one model: the same weights on all, those of one process but for rounding."""

import dataclasses
import json
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from prectr.model.distributed.process_group import TorchProcessGroup, init_process_group
from prectr.model.layers.gradients import Gradients
from prectr.model.models.registry import MODELS
from prectr.model.training.trainer import BatchScores, Trainer
from prectr.state.errors import ConfigError, TrainingError
from prectr.stream.coordination.folder_broadcast import receive_folder, send_folder
from prectr.stream.records import Example
from prectr.stream.replay.run_checkpoint import list_checkpoints
from tests.kit.models.examples import random_examples, small_config
from tests.kit.models.ranks import finish_ranks, start_ranks
from tests.kit.models.threads import run_on_ranks

EXAMPLES = random_examples(120, seed=3)
PROGRAM = "tests.kit.models.trainer_program"
ROUNDING = 2e-5
"""Sums of some hundred float32 numbers in another order; Adagrad's first steps on a row make the most of it."""


def _trained(
    model: str, ranks: TorchProcessGroup | None, examples: list[Example] = EXAMPLES, pages: int = 5
) -> Trainer:
    trainer = Trainer(small_config(model=model, batch_pages=pages, batch_span=100.0), process_group=ranks)
    trainer.consume(examples, 0)
    trainer.flush()
    return trainer


@pytest.mark.parametrize("model", sorted(MODELS.keys() - {"prectr-v2"}))
@pytest.mark.parametrize("size", [2, 3, 6])
def test_ranks_hold_the_weights_of_one_process_that_learns_from_whole_batches(model: str, size: int) -> None:
    """A batch ends at 5 pages or 100 s, about 5 pages more: many leave a rank of three, and all one of six, idle.

    prectr-v2 has rows whose gradient is next to nothing at the start, and Adagrad makes much of what rounding leaves of
    it: see the gradients of a batch, below.
    """
    alone = _trained(model, None, EXAMPLES[:60])
    together = run_on_ranks(size, lambda ranks: _trained(model, ranks, EXAMPLES[:60]))
    assert len({trainer.weights_sha256() for trainer in together}) == 1
    for name, tensor in together[0]._model.weights().items():
        assert torch.allclose(tensor, alone._model.weights()[name], rtol=0, atol=ROUNDING), name
    for trainer in together:
        assert (trainer.batches, trainer.pages_trained) == (alone.batches, alone.pages_trained)
        assert np.array_equal(trainer._prior_rates.clicks, alone._prior_rates.clicks)
        assert np.array_equal(trainer._prior_rates.impressions, alone._prior_rates.impressions)


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "prectr"},
        {"model": "prectr-v2"},
        {"model": "prectr-v2", "debias": "hinge"},
        {"model": "wide-deep+"},
        {"model": "wide-deep+", "exposure": "on"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
@pytest.mark.parametrize("size", [2, 3])
def test_gradients_of_all_shards_sum_to_those_of_the_whole_batch(
    settings: dict[str, object], size: int, tmp_path: Path
) -> None:
    """Also of losses that are a mean over pairs or hard negatives; the batch shows pairs twice, on several ranks.

    So do the state updates (encoded pairs, exposed pairs).
    """
    settings = {
        "encoder_share": 0.5,
        "stage_one_kl_weight": 3.0,
        "soft_target_weight": 3.0,
        "hinge_weight": 3.0,
        **settings,
    }
    config = small_config(batch_pages=8, batch_span=1e9, embedding_scale=0.3, **settings)
    first = Trainer(config)
    first.consume(EXAMPLES[:24], 0)
    first.save(tmp_path)

    def last_step(ranks: TorchProcessGroup | None) -> Gradients:
        steps: list[Gradients] = []
        trainer = Trainer(config, process_group=ranks)
        trainer.load(tmp_path)
        trainer._model.step = lambda taken: steps.append(dataclasses.replace(taken, dense=taken.dense.clone()))  # type: ignore[method-assign]
        # Two of the queries, asked again with the same items.
        trainer.consume([*EXAMPLES[24:29], *EXAMPLES[24:27]], 0)
        return steps[0]

    alone = last_step(None)
    assert alone.dense.abs().max() > 1e-3 or not len(alone.dense)
    for together in run_on_ranks(size, last_step):
        assert torch.allclose(together.dense, alone.dense, rtol=1e-4, atol=2e-6)
        assert together.tables.keys() == alone.tables.keys()
        for name, table in alone.tables.items():
            assert torch.equal(together.tables[name].indices, table.indices), name
            assert torch.allclose(together.tables[name].values, table.values, rtol=1e-4, atol=2e-5), name
        assert together.state_updates.keys() == alone.state_updates.keys()
        for name, update in alone.state_updates.items():
            assert torch.equal(together.state_updates[name].indices, update.indices), name
            summed, expected = together.state_updates[name].values, update.values
            if name in ("pair_cache", "exposed_pairs"):
                # Their last column counts ranks: the state keeps the mean.
                summed, expected = summed / summed[:, -1:], expected / expected[:, -1:]
            assert torch.allclose(summed, expected, rtol=1e-4, atol=2e-5), name


def test_every_rank_counts_every_page_once() -> None:
    alone = _trained("wide-deep+", None).quality.summary()
    for trainer in run_on_ranks(3, lambda ranks: _trained("wide-deep+", ranks)):
        summary = trainer.quality.summary()
        assert (summary.pages, summary.impressions, summary.clicks) == (120, alone.impressions, alone.clicks)
        assert summary.auc == pytest.approx(alone.auc, abs=1e-4)
        assert summary.gauc == pytest.approx(alone.gauc, abs=1e-4)
        assert summary.log_loss == pytest.approx(alone.log_loss, abs=1e-6)
        assert summary.segments.new.impressions == alone.segments.new.impressions
        assert summary.positions["3"].clicks == alone.positions["3"].clicks


def test_the_pages_of_a_batch_go_round_the_ranks() -> None:
    seen: dict[int, list[list[str]]] = {0: [], 1: []}

    def train(ranks: TorchProcessGroup) -> None:
        def record(scores: BatchScores) -> None:
            seen[ranks.rank].append(scores.batch.request_ids)

        trainer = Trainer(small_config(batch_pages=5, batch_span=1e9), record, ranks)
        trainer.consume(EXAMPLES[:11], 0)
        trainer.flush()

    run_on_ranks(2, train)
    ids = [example.request_id for example in EXAMPLES[:11]]
    assert seen[0] == [ids[0:5:2], ids[5:10:2], ids[10:11]]
    assert seen[1] == [ids[1:5:2], ids[6:10:2]]


def test_a_failing_shard_stops_all_ranks_before_any_weight_changes() -> None:
    """The second page alone is rank 1's; its score is not finite."""

    def train(ranks: TorchProcessGroup) -> tuple[str, bool, int]:
        trainer = Trainer(small_config(model="lr", batch_pages=2, batch_span=1e9), process_group=ranks)
        trainer.consume(EXAMPLES[:20], 0)
        if ranks.rank == 1:
            for tensor in trainer._model.weights().values():
                tensor[:] = torch.nan
        before = {name: tensor.clone() for name, tensor in trainer._model.weights().items()}
        with pytest.raises(TrainingError) as raised:
            trainer.consume(EXAMPLES[20:22], 0)
        after = trainer._model.weights()
        same = all(torch.equal(after[name].nan_to_num(7.0), before[name].nan_to_num(7.0)) for name in before)
        return str(raised.value), same, trainer.batches

    for message, same, batches in run_on_ranks(2, train):
        assert "click loss of a batch is nan" in message
        assert "'r00021'" in message
        assert "'r00020'" not in message
        assert same
        assert batches == 10


def test_processes_equal_threads_bit_for_bit_whatever_the_pieces(tmp_path: Path) -> None:
    threads = {
        model: run_on_ranks(2, lambda ranks, model=model: _trained(model, ranks).weights_sha256())  # type: ignore[misc]
        for model in ("lr", "wide-deep+")
    }
    for out in finish_ranks(start_ranks(PROGRAM, 2, tmp_path, "cpu", 120, 0, 5, 7)):
        result = _result(out)
        assert {model: [result[model]["weights"]] * 2 for model in result} == threads


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="each of two ranks needs a GPU")
def test_ranks_on_gpus_hold_one_model_and_count_what_those_on_cpus_count(tmp_path: Path) -> None:
    on_gpus = [_result(out) for out in finish_ranks(start_ranks(PROGRAM, 2, tmp_path, "cuda", 120, 0, 5, 7))]
    assert on_gpus[0] == on_gpus[1]
    alone = _trained("wide-deep+", None)
    assert on_gpus[0]["wide-deep+"]["trained"] == [alone.batches, alone.pages_trained]
    assert on_gpus[0]["wide-deep+"]["parents"] == alone._prior_rates.clicks.sum(axis=0).tolist()


def test_kill_9_of_any_rank_and_restart_equals_undisturbed_bit_for_bit(tmp_path: Path) -> None:
    arguments = ("cpu", 200, 1, 4, 3)
    (tmp_path / "disturbed").mkdir()
    undisturbed = [_result(out) for out in finish_ranks(start_ranks(PROGRAM, 2, tmp_path / "undisturbed", *arguments))]
    rng = random.Random(8)
    for victim in (1, 0):
        processes = start_ranks(PROGRAM, 2, tmp_path / "disturbed", *arguments)
        _wait_for_checkpoints(tmp_path / "disturbed", rng.randrange(3, 12))
        time.sleep(rng.uniform(0, 0.02))
        processes[victim].kill()
        processes[victim].wait()
        _, err = processes[1 - victim].communicate(timeout=100)
        assert processes[1 - victim].returncode == 1, err[-4000:]
        assert f"rank {1 - victim} of 2 has lost the others" in err
        # One that gloo has left would abort the process, now and then, where it ends after the interpreter.
        assert "threads left: ['python" in err
        assert "gloo" not in err.partition("threads left: ")[2]
    assert [
        _result(out) for out in finish_ranks(start_ranks(PROGRAM, 2, tmp_path / "disturbed", *arguments))
    ] == undisturbed
    assert undisturbed[0] == undisturbed[1]


def test_a_rank_that_is_sent_the_checkpoint_of_rank_0_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """As on a machine that does not have rank 0's run folder."""
    config = small_config(model="wide-deep+", batch_pages=5, batch_span=100.0)

    def train(ranks: TorchProcessGroup, resume: bool) -> str:
        trainer = Trainer(config, process_group=ranks)
        for start in (0, 61):
            # The 61st page is in an open batch.
            trainer.consume(EXAMPLES[start : start + 61], 0)
            if resume and start == 0:
                saved = tmp_path / f"rank-{ranks.rank}"
                saved.mkdir()
                if ranks.rank == 0:
                    trainer.save(saved)
                    send_folder(ranks, saved)
                else:
                    receive_folder(ranks, saved)
                trainer = Trainer(config, process_group=ranks)
                trainer.load(saved)
        trainer.flush()
        return trainer.weights_sha256()

    undisturbed = run_on_ranks(2, lambda ranks: train(ranks, resume=False))
    assert run_on_ranks(2, lambda ranks: train(ranks, resume=True)) == undisturbed
    assert len(set(undisturbed)) == 1


def _wait_for_checkpoints(folder: Path, more: int) -> None:
    """Until so many more cuts have been made than there are."""

    def newest() -> int:
        found = list_checkpoints(folder)
        return int(found[0].name) if found else 0

    until = time.monotonic() + 100
    last = newest() + more
    while newest() < last:
        assert time.monotonic() < until
        time.sleep(0.005)


def _result(out: str) -> dict[str, dict[str, object]]:
    result: dict[str, dict[str, object]] = json.loads(out.splitlines()[-1])
    return result


def test_a_single_process_joins_no_group() -> None:
    assert init_process_group("cpu", {}) is None
    assert init_process_group("cpu", {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}) is None


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is two"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is 0"),
        ({"WORLD_SIZE": "2"}, "RANK is not set"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "MASTER_ADDR is not set"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost"}, "MASTER_PORT is not set"),
    ],
)
def test_an_environment_that_torchrun_did_not_make_is_refused_by_name(environment: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=f"{named}.*torchrun"):
        init_process_group("cpu", environment)


@pytest.mark.skipif(torch.cuda.device_count() > 7, reason="there are enough GPUs")
def test_more_processes_than_gpus_train_on_the_cpu_or_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[torch.device] = []
    monkeypatch.setattr(TorchProcessGroup, "__init__", lambda self, rank, size, device: joined.append(device))
    eight = {"WORLD_SIZE": "8", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    init_process_group("auto", eight)
    assert joined == [torch.device("cpu")]
    with pytest.raises(ConfigError, match="8 processes on this machine need as many CUDA devices; torch finds"):
        init_process_group("cuda", eight)
