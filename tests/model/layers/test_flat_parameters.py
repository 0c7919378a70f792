"""Parameters of modules in flat buffers, against torch's Adam with two groups of parameters."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import Parameter

from prectr.model.layers.flat_parameters import FlatParameters, ParameterGroup
from prectr.model.layers.linear import Linear, he_bound

CPU = torch.device("cpu")


class Head(nn.Module):
    """A linear map of the network's outputs."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.linear = Linear(3, 2, torch.Generator().manual_seed(seed), bound=he_bound(3), bias=0.3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.linear(inputs)
        return outputs


def _network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def _loss(network: nn.Module, head: nn.Module, step: int) -> Tensor:
    inputs = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
    loss: Tensor = ((head(network(inputs)) - 1.0) ** 2).mean()
    return loss


def _named(module: nn.Module, prefix: str) -> Mapping[str, Parameter]:
    return dict(module.named_parameters(prefix))


def _flat(network: nn.Module, head: nn.Module) -> FlatParameters:
    groups = [ParameterGroup(_named(head, "head"), 0.01), ParameterGroup(_named(network, "net"), 0.002)]
    return FlatParameters(groups, CPU)


def _train(dense: FlatParameters, network: nn.Module, head: nn.Module, steps: range) -> None:
    for step in steps:
        _loss(network, head, step).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            dense.step(dense.gradient)


def test_modules_keep_their_values_and_names() -> None:
    network, head = _network(), Head(1)
    expected = {**_named(_network(), "net"), **_named(Head(1), "head")}
    dense = _flat(network, head)
    assert set(dense.parameters_by_name()) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(dense.parameters_by_name()[name], tensor)
    inputs = torch.randn(3, 4)
    assert torch.equal(network(inputs), _network()(inputs))


def test_parameters_and_gradients_are_views_of_the_buffers() -> None:
    network, head = _network(), Head(1)
    dense = _flat(network, head)
    _loss(network, head, 0).backward()  # type: ignore[no-untyped-call]
    gradients = [each.grad for each in (*head.parameters(), *network.parameters())]
    assert torch.equal(dense.gradient, torch.cat([each.flatten() for each in gradients if each is not None]))
    before = [each.detach().clone() for each in network.parameters()]
    dense.step(dense.gradient)
    assert all(not torch.equal(a, b) for a, b in zip(network.parameters(), before, strict=True))


def test_steps_are_those_of_torchs_adam_with_a_rate_for_each_group() -> None:
    network, head, reference, reference_head = _network(), Head(1), _network(), Head(1)
    dense = _flat(network, head)
    groups = [
        {"params": list(reference_head.parameters()), "lr": 0.01},
        {"params": list(reference.parameters()), "lr": 0.002},
    ]
    adam = torch.optim.Adam(groups)
    for step in range(8):
        adam.zero_grad()
        _loss(reference, reference_head, step).backward()  # type: ignore[no-untyped-call]
        adam.step()
    _train(dense, network, head, range(8))
    for own, other in zip(head.parameters(), reference_head.parameters(), strict=True):
        assert torch.allclose(own, other, atol=1e-6)
    moved = 0.0
    for own, other, start in zip(network.parameters(), reference.parameters(), _network().parameters(), strict=True):
        assert torch.allclose(own, other, atol=1e-6)
        moved = max(moved, (own - start).abs().max().item())
    # Eight steps of Adam of 0.002 each, at most, and a good part of that.
    assert 0.008 < moved < 0.0161


def test_the_gradient_buffer_is_zero_after_a_step() -> None:
    network, reference, head, reference_head = _network(), _network(), Head(1), Head(1)
    dense = _flat(network, head)
    _loss(network, head, 0).backward()  # type: ignore[no-untyped-call]
    _loss(reference, reference_head, 0).backward()  # type: ignore[no-untyped-call]
    gradients = [each.grad for each in (*reference_head.parameters(), *reference.parameters())]
    expected = torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])
    assert torch.allclose(dense.gradient, expected, atol=1e-7)
    dense.step(dense.gradient)
    assert dense.gradient.abs().sum().item() == 0.0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in network.parameters())


def test_restored_parameters_continue_bit_for_bit() -> None:
    network, head, other, other_head = _network(), Head(1), _network(seed=9), Head(2)
    undisturbed = _flat(network, head)
    _train(undisturbed, network, head, range(3))
    restored = _flat(other, other_head)
    restored.load_state_dict({name: tensor.clone() for name, tensor in undisturbed.state_dict().items()})
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))
    _train(undisturbed, network, head, range(3, 6))
    _train(restored, other, other_head, range(3, 6))
    for name, tensor in undisturbed.parameters_by_name().items():
        assert torch.equal(tensor, restored.parameters_by_name()[name])
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))


def test_a_state_of_other_parameters_is_rejected() -> None:
    alone = FlatParameters([ParameterGroup(_named(Head(1), "head"), 0.01)], CPU)
    with pytest.raises(RuntimeError):
        _flat(_network(), Head(1)).load_state_dict(alone.state_dict())


def test_the_first_step_of_a_group_is_as_long_as_its_rate() -> None:
    network = _network()
    dense = FlatParameters([ParameterGroup({}, 0.01), ParameterGroup(_named(network, "net"), 0.5)], CPU)
    network(torch.ones(1, 4)).sum().backward()
    before = network[2].bias.detach().clone()
    dense.step(dense.gradient)
    # The first step of Adam is as long as its rate wherever there is a gradient.
    assert (before - network[2].bias.detach()).tolist() == pytest.approx([0.5] * 3, abs=1e-4)


def test_initial_values_depend_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    first = Head(1).linear
    torch.manual_seed(6)
    same, other = Head(1).linear, Head(2).linear
    assert torch.equal(first.weight, same.weight)
    assert not torch.equal(first.weight, other.weight)
    assert first.weight.abs().max().item() <= he_bound(3)
    assert first.bias is not None
    assert first.bias.tolist() == pytest.approx([0.3, 0.3])
    zero = Linear(3, 2, torch.Generator().manual_seed(1))
    assert zero.weight.tolist() == [[0.0] * 3] * 2
    assert zero.bias is None


def test_a_constant_parameter_does_not_change_the_ones_after_it() -> None:
    """Each element draws one random number, whatever its bound."""
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    for generator, bound in zip(generators, (0.0, 1.0), strict=True):
        Linear(3, 2, generator, bound=bound)
    first, second = (Linear(3, 2, generator, bound=1.0) for generator in generators)
    assert torch.equal(first.weight, second.weight)
