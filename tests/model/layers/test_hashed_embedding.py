import math

import numpy as np
import pytest
import torch

from prectr.model.layers.gradients import SparseGradient
from prectr.model.layers.hashed_embedding import HashedEmbedding
from prectr.model.layers.sparse_optimizers import Adagrad, Ftrl, ScAdagrad, SparseOptimizer

CPU = torch.device("cpu")
RULES = [Adagrad(0.1), Ftrl(0.1, 1.0, 0.5, 0.2), ScAdagrad(4.0), ScAdagrad(4.0, 0.1)]


def _table(rule: SparseOptimizer, columns: int = 3, scale: float = 0.1) -> HashedEmbedding:
    return HashedEmbedding(50, columns, rule, seed=1, scale=scale, device=CPU)


def _step(table: HashedEmbedding, wanted: np.ndarray, weights: torch.Tensor) -> None:
    gathered = table.gather(wanted)
    (gathered.lookup() * weights).sum().backward()  # type: ignore[no-untyped-call]
    assert gathered.values.grad is not None
    table.apply(SparseGradient(gathered.indices, gathered.values.grad))


def _random_steps(table: HashedEmbedding, steps: int, seed: int = 0) -> None:
    random = np.random.default_rng(seed)
    for _ in range(steps):
        wanted = random.integers(0, 40, (6, 2))
        _step(table, wanted, torch.from_numpy(random.normal(size=(6, 2, table.values.shape[1])).astype(np.float32)))


def test_adagrad_is_that_of_torch_on_a_dense_table() -> None:
    table = _table(Adagrad(0.1, eps=1e-6))
    dense = table.values.clone().requires_grad_()
    reference = torch.optim.Adagrad([dense], lr=0.1, eps=1e-6)
    random = np.random.default_rng(0)
    for _ in range(10):
        wanted = random.integers(0, 50, (6, 2))
        weights = torch.from_numpy(random.normal(size=(6, 2, 3)).astype(np.float32))
        _step(table, wanted, weights)
        reference.zero_grad()
        (dense[torch.from_numpy(wanted)] * weights).sum().backward()  # type: ignore[no-untyped-call]
        reference.step()
    assert torch.allclose(table.values, dense.detach(), atol=1e-6)


def test_ftrl_is_the_algorithm_of_2013_coordinate_by_coordinate() -> None:
    alpha, beta, l1, l2 = 0.3, 1.5, 0.05, 0.7
    table = _table(Ftrl(alpha, beta, l1, l2), columns=1, scale=0.0)
    n = z = 0.0
    for gradient in [0.9, -0.2, 0.6, 0.5, -1.5, 0.05, -0.7]:
        weight = 0.0 if abs(z) <= l1 else -(z - math.copysign(l1, z)) / ((beta + math.sqrt(n)) / alpha + l2)
        assert float(table.values[7]) == pytest.approx(weight, abs=1e-6)
        sigma = (math.sqrt(n + gradient**2) - math.sqrt(n)) / alpha
        z += gradient - sigma * weight
        n += gradient**2
        table.apply(SparseGradient(torch.tensor([7]), torch.tensor([[gradient]])))
    assert float(table.values.abs().sum()) == float(table.values[7].abs()) > 0


def test_ftrl_keeps_a_weight_of_little_use_at_exactly_zero() -> None:
    table = _table(Ftrl(0.1, 1.0, 1.0, 0.0), columns=1, scale=0.0)
    for gradient in (0.4, -0.3, 0.5):
        table.apply(SparseGradient(torch.tensor([3]), torch.tensor([[gradient]])))
    assert float(table.values[3]) == 0.0


def test_newton_by_hand() -> None:
    table = _table(ScAdagrad(4.0), columns=1, scale=0.0)
    table.apply(SparseGradient(torch.tensor([3]), torch.tensor([[2.0]])))
    assert float(table.values[3]) == pytest.approx(-2 / (4 + 4))
    table.apply(SparseGradient(torch.tensor([3]), torch.tensor([[-1.0]])))
    assert float(table.values[3]) == pytest.approx(-2 / 8 + 1 / (4 + 4 + 1))


def test_a_newton_step_that_forgets_by_hand() -> None:
    table = _table(ScAdagrad(4.0, forgetting=0.25), columns=1, scale=0.0)
    table.apply(SparseGradient(torch.tensor([3]), torch.tensor([[2.0]])))
    assert float(table.values[3]) == pytest.approx(-2 / (4 + 4))
    table.apply(SparseGradient(torch.tensor([3]), torch.tensor([[-1.0]])))
    assert float(table.values[3]) == pytest.approx(-2 / 8 + 1 / (4 + 3 + 1))


@pytest.mark.parametrize("rule", RULES)
def test_only_the_rows_of_a_batch_change(rule: SparseOptimizer) -> None:
    table = _table(rule)
    before = table.values.clone()
    _step(table, np.array([4, 9, 4]), torch.ones(3, 3))
    changed = (table.values != before).any(dim=1).nonzero().flatten().tolist()
    assert changed == [4, 9]


def test_a_row_wanted_twice_gets_the_sum_of_both_gradients() -> None:
    gathered = _table(Adagrad(0.1)).gather(np.array([4, 9, 4]))
    (gathered.lookup() * torch.tensor([[1.0], [10.0], [100.0]])).sum().backward()  # type: ignore[no-untyped-call]
    assert gathered.values.grad is not None
    assert gathered.values.grad[:, 0].tolist() == [101.0, 10.0]


@pytest.mark.parametrize("rule", RULES)
def test_a_restored_table_goes_on_bit_for_bit_and_stores_only_changed_rows(rule: SparseOptimizer) -> None:
    undisturbed, restored = _table(rule), _table(rule)
    _random_steps(undisturbed, 5)
    exported = undisturbed.state_dict()
    assert len(exported["rows"]) <= 40
    restored.load_state_dict(exported)
    for table in (undisturbed, restored):
        _random_steps(table, 5, seed=1)
    assert torch.equal(undisturbed.values, restored.values)
    assert all(
        torch.equal(tensor, restored.optimizer_state[name]) for name, tensor in undisturbed.optimizer_state.items()
    )
    assert {name: tensor.tolist() for name, tensor in undisturbed.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in restored.state_dict().items()
    }


def test_a_table_does_not_grow() -> None:
    table = _table(Adagrad(0.1))
    shape = table.values.shape
    _random_steps(table, 30)
    assert table.values.shape == shape
