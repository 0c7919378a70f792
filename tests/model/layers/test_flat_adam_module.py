"""A network that moves into the buffers of dense parameters, against torch's Adam with two groups of parameters."""

import pytest
import torch
from torch import Tensor, nn

from prectr.model.layers.flat_parameters import FlatParameters, ParameterSpec

CPU = torch.device("cpu")
SHAPES = {"weight": ParameterSpec.he_uniform(3, 2), "bias": ParameterSpec.constant(0.3, 2)}


def _network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def _loss(network: nn.Module, weight: Tensor, bias: Tensor, step: int) -> Tensor:
    inputs = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
    return ((network(inputs) @ weight.T + bias - 1.0) ** 2).mean()


def _dense(network: nn.Module, seed: int = 1) -> FlatParameters:
    return FlatParameters(SHAPES, lr=0.01, seed=seed, device=CPU, module=("net", network, 0.002))


def _train(dense: FlatParameters, network: nn.Module, steps: range) -> None:
    for step in steps:
        _loss(network, dense["weight"], dense["bias"], step).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            dense.step(dense.gradient)


def test_a_network_keeps_its_values_and_has_names_under_its_prefix() -> None:
    network, before = _network(), _network()
    dense = _dense(network)
    expected = {f"net.{name}": tensor for name, tensor in before.named_parameters()}
    assert set(dense.parameters_by_name()) == {"weight", "bias", *expected}
    for name, tensor in expected.items():
        assert torch.equal(dense.parameters_by_name()[name], tensor)
    inputs = torch.randn(3, 4)
    assert torch.equal(network(inputs), before(inputs))


def test_parameters_made_are_those_made_without_a_network() -> None:
    alone = FlatParameters(SHAPES, lr=0.01, seed=1, device=CPU).parameters_by_name()
    beside = _dense(_network()).parameters_by_name()
    assert all(torch.equal(beside[name], alone[name]) for name in SHAPES)


def test_steps_are_those_of_torchs_adam_with_a_rate_for_each() -> None:
    network, reference = _network(), _network()
    dense = _dense(network)
    weight, bias = (dense.parameters_by_name()[name].clone().requires_grad_() for name in SHAPES)
    adam = torch.optim.Adam([{"params": [weight, bias], "lr": 0.01}, {"params": reference.parameters(), "lr": 0.002}])
    for step in range(8):
        adam.zero_grad()
        _loss(reference, weight, bias, step).backward()  # type: ignore[no-untyped-call]
        adam.step()
    _train(dense, network, range(8))
    assert torch.allclose(dense["weight"], weight, atol=1e-6)
    assert torch.allclose(dense["bias"], bias, atol=1e-6)
    moved = 0.0
    for own, other, start in zip(network.parameters(), reference.parameters(), _network().parameters(), strict=True):
        assert torch.allclose(own, other, atol=1e-6)
        moved = max(moved, (own - start).abs().max().item())
    # Eight steps of Adam of 0.002 each, at most, and a good part of that.
    assert 0.008 < moved < 0.0161


def test_the_gradient_is_one_buffer_of_all_and_empties_with_the_step() -> None:
    network, reference = _network(), _network()
    dense = _dense(network)
    weight, bias = (dense.parameters_by_name()[name].clone().requires_grad_() for name in SHAPES)
    _loss(network, dense["weight"], dense["bias"], 0).backward()  # type: ignore[no-untyped-call]
    _loss(reference, weight, bias, 0).backward()  # type: ignore[no-untyped-call]
    gradients = [each.grad for each in (weight, bias, *reference.parameters())]
    expected = torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])
    assert torch.allclose(dense.gradient, expected, atol=1e-7)
    dense.step(dense.gradient)
    assert dense.gradient.abs().sum().item() == 0.0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in network.parameters())


def test_restored_parameters_and_network_go_on_bit_for_bit() -> None:
    network, other = _network(), _network(seed=9)
    undisturbed = _dense(network)
    _train(undisturbed, network, range(3))
    restored = _dense(other, seed=2)
    restored.load_state_dict({name: tensor.clone() for name, tensor in undisturbed.state_dict().items()})
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))
    _train(undisturbed, network, range(3, 6))
    _train(restored, other, range(3, 6))
    for name, tensor in undisturbed.parameters_by_name().items():
        assert torch.equal(tensor, restored.parameters_by_name()[name])
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))


def test_a_state_without_the_network_is_refused() -> None:
    alone = FlatParameters(SHAPES, lr=0.01, seed=1, device=CPU)
    with pytest.raises(RuntimeError):
        _dense(_network()).load_state_dict(alone.state_dict())


def test_a_network_by_itself_can_be_adopted() -> None:
    network = _network()
    dense = FlatParameters({}, lr=0.01, seed=0, device=CPU, module=("net", network, 0.5))
    network(torch.ones(1, 4)).sum().backward()
    before = network[2].bias.detach().clone()
    dense.step(dense.gradient)
    # The first step of Adam is as long as its rate wherever there is a gradient.
    assert (before - network[2].bias.detach()).tolist() == pytest.approx([0.5] * 3, abs=1e-4)
