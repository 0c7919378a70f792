"""What is not finite is neither learned from, nor saved, nor restored."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor

from prectr.model.distributed.process_group import TorchProcessGroup
from prectr.model.layers.gradients import Gradients
from prectr.model.training.trainer import Trainer
from prectr.state.errors import TrainingError
from tests.kit.models.examples import random_examples, small_config
from tests.kit.models.threads import run_on_ranks

EXAMPLES = random_examples(40, seed=7)
PARTS = [
    ("lr", "table ids"),
    ("lr", "table position"),
    ("dnn", "dense"),
    ("dnn", "table embedding"),
    ("wide-deep", "dense"),
    ("wide-deep", "table wide"),
    ("prectr-v2", "dense"),
    ("prectr-v2", "table embedding"),
    ("prectr-v2", "update of pair_cache"),
    ("prectr-v2", "update of exposure"),
]
"""A model, and a part of its gradients or updates."""


def _trainer(model: str, ranks: TorchProcessGroup | None = None) -> Trainer:
    trainer = Trainer(small_config(model=model, batch_span=1e9), process_group=ranks)
    trainer.consume(EXAMPLES[:20], 0)
    return trainer


def _part(gradients: Gradients, part: str) -> Tensor:
    kind, _, name = part.rpartition(" ")
    if kind == "table":
        return gradients.tables[name].values
    return gradients.state_updates[name].values if kind == "update of" else gradients.dense


def _poison_gradients(trainer: Trainer, part: str, value: float) -> None:
    """Put a value among the gradients of the next batch alone; the losses stay as they are."""
    gradients_of = trainer._model.gradients

    def gradients(batch: object, forward: object) -> Gradients:
        found = gradients_of(batch, forward)  # type: ignore[arg-type]
        _part(found, part).view(-1)[-1] = value
        trainer._model.gradients = gradients_of  # type: ignore[method-assign]
        return found

    trainer._model.gradients = gradients  # type: ignore[method-assign]


def _everything(trainer: Trainer) -> tuple[dict[str, bytes], bytes]:
    """Tensors as bytes by name, and all that is counted."""
    tensors = {name: tensor.numpy().tobytes() for name, tensor in trainer._model.training_state().items()}
    counted = [
        trainer.quality.state(),
        trainer.resamples.state(),
        trainer.query_losses.state(),
        trainer.reranking.state(),
        trainer._slots.state,
        trainer._permutation_importance.state,
        trainer._prior_rates.impressions.tobytes(),
        trainer._prior_rates.clicks.tobytes(),
        [trainer.batches, trainer.pages_trained],
    ]
    return tensors, msgspec.msgpack.encode(counted)


@pytest.mark.parametrize(("model", "part"), PARTS)
@pytest.mark.parametrize(("value", "shown"), [(torch.inf, "inf"), (-1e30, "-1e[+]30, too large to be squared")])
def test_a_gradient_that_cannot_be_used_changes_nothing_and_is_named_with_its_pages(
    model: str, part: str, value: float, shown: str
) -> None:
    trainer = _trainer(model)
    before = _everything(trainer)
    _poison_gradients(trainer, part, value)
    last_parameter = list(trainer._model.weights())[-1].removeprefix("dense.")
    name = f"gradient of {last_parameter}" if part == "dense" else part
    with pytest.raises(TrainingError, match=f"{name} is {shown}; the batch.*'r00020', 'r00021', 'r00022', 'r00023'"):
        trainer.consume(EXAMPLES[20:24], 0)
    assert _everything(trainer) == before


@pytest.mark.parametrize(("model", "part"), PARTS)
def test_after_a_refused_gradient_the_same_batch_is_learned_from_as_if_nothing_had_been(model: str, part: str) -> None:
    undisturbed = _trainer(model)
    undisturbed.consume(EXAMPLES[20:24], 0)
    trainer = _trainer(model)
    _poison_gradients(trainer, part, torch.nan)
    with pytest.raises(TrainingError):
        trainer.consume(EXAMPLES[20:24], 0)
    trainer.flush()
    assert _everything(trainer) == _everything(undisturbed)


def test_large_gradients_whose_sum_of_squares_alone_overflows_are_learned_from() -> None:
    trainer = _trainer("dnn")
    gradients_of = trainer._model.gradients

    def gradients(batch: object, forward: object) -> Gradients:
        found = gradients_of(batch, forward)  # type: ignore[arg-type]
        found.tables["embedding"].values.fill_(1.5e19)  # 2.25e38 squared, of at most 3.4e38
        return found

    trainer._model.gradients = gradients  # type: ignore[method-assign]
    trainer.consume(EXAMPLES[20:24], 0)
    assert trainer.batches == 6


@pytest.mark.parametrize(("model", "part"), [("lr", "table ids"), ("dnn", "dense"), ("prectr-v2", "table embedding")])
def test_a_gradient_of_one_rank_is_refused_by_all_in_the_same_words(model: str, part: str) -> None:
    def train(ranks: TorchProcessGroup) -> tuple[str, bool]:
        trainer = _trainer(model, ranks)
        before = _everything(trainer)
        if ranks.rank == 1:
            _poison_gradients(trainer, part, torch.inf)
        with pytest.raises(TrainingError) as raised:
            trainer.consume(EXAMPLES[20:24], 0)
        return str(raised.value), _everything(trainer) == before

    (first, first_same), (second, second_same) = run_on_ranks(2, train)
    assert first == second
    assert "is inf; the batch was not learned from. Its pages: 'r00020', 'r00021', 'r00022', 'r00023'" in first
    assert first_same
    assert second_same


def test_the_pair_cache_holds_no_infinity_though_float16_has_a_narrower_range() -> None:
    trainer = _trainer("prectr-v2")
    encoder = trainer._model._pair_encoder  # type: ignore[attr-defined]
    keys = torch.tensor([3, 5]).numpy().view("uint64")
    values = torch.tensor([[7e4], [-1e9]]).expand(2, 133)
    encoder.apply(encoder._cache.updates_for(keys, values))
    slots, _ = encoder._cache.find(keys)
    assert encoder._cache.read(slots)[:, 0].tolist() == [65504.0, -65504.0]


STATES = [
    ("lr", "model.ids.values", lambda trainer: trainer._model._tables["ids"].values[7]),
    ("lr", "model.ids.state.n", lambda trainer: trainer._model._tables["ids"].optimizer_state["n"][7]),
    ("dnn", "model.dense.values", lambda trainer: trainer._model.deep.out.weight.data),
    ("dnn", "model.dense.square", lambda trainer: trainer._model._dense._exp_avg_sq),
    ("wide-deep", "model.table.wide.values", lambda trainer: trainer._model._tables["wide"].values[7]),
    ("prectr-v2", "model.dense.mean", lambda trainer: trainer._model._dense._exp_avg),
    ("prectr-v2", "model.pair_cache.values", lambda trainer: trainer._model._pair_encoder._cache._values),
    ("prectr-v2", "prior_rates.clicks", lambda trainer: torch.from_numpy(trainer._prior_rates.clicks)),
]
"""A model, the name of a tensor in its checkpoint, and where its numbers are in memory."""


@pytest.mark.parametrize(("model", "name", "numbers"), STATES)
@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_a_state_that_is_not_finite_is_not_saved_and_its_tensor_is_named(
    model: str, name: str, numbers: Callable[[Trainer], Tensor], value: float, tmp_path: Path
) -> None:
    trainer = _trainer(model)
    numbers(trainer).view(-1)[-1] = value
    if "table" in name or "ids" in name:
        trainer._model._tables[name.split(".")[-2 if "values" in name else -3]]._updated[7] = True  # type: ignore[attr-defined]
    if "pair_cache" in name:
        trainer._model._pair_encoder._cache._steps[-1] = 1  # type: ignore[attr-defined]
    with pytest.raises(TrainingError, match=f"{name} holds {value}; the checkpoint before it stays"):
        trainer.save(tmp_path)
    assert not list(tmp_path.iterdir())
