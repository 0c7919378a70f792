import torch

from prectr.model.layers.flat_parameters import FlatParameters, ParameterSpec

CPU = torch.device("cpu")
SHAPES = {"a": ParameterSpec.he_uniform(5, 3), "b": ParameterSpec.zeros(3), "c": ParameterSpec.constant(-2.0, 1)}


def _train(dense: FlatParameters, steps: range) -> None:
    for step in steps:
        random = torch.Generator().manual_seed(step)
        inputs = torch.randn(4, 5, generator=random)
        loss = (torch.relu(inputs @ dense["a"].T + dense["b"]).sum() + dense["c"].sum() - 1) ** 2
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            dense.step(dense.gradient)


def test_a_step_is_adam_as_torch_has_it() -> None:
    dense = FlatParameters(SHAPES, lr=0.01, seed=1, device=CPU)
    named = {name: tensor.clone().requires_grad_() for name, tensor in dense.parameters_by_name().items()}
    reference = torch.optim.Adam(named.values(), lr=0.01)
    _train(dense, range(6))
    for step in range(6):
        inputs = torch.randn(4, 5, generator=torch.Generator().manual_seed(step))
        reference.zero_grad()
        loss = (torch.relu(inputs @ named["a"].T + named["b"]).sum() + named["c"].sum() - 1) ** 2
        loss.backward()  # type: ignore[no-untyped-call]
        reference.step()
    for name, tensor in dense.parameters_by_name().items():
        assert torch.allclose(tensor, named[name].detach(), atol=1e-6)


def test_restored_parameters_go_on_bit_for_bit() -> None:
    undisturbed = FlatParameters(SHAPES, lr=0.01, seed=1, device=CPU)
    _train(undisturbed, range(3))
    restored = FlatParameters(SHAPES, lr=0.01, seed=2, device=CPU)
    restored.load_state_dict({name: tensor.clone() for name, tensor in undisturbed.state_dict().items()})
    _train(undisturbed, range(3, 6))
    _train(restored, range(3, 6))
    for name, tensor in undisturbed.parameters_by_name().items():
        assert torch.equal(tensor, restored.parameters_by_name()[name])


def test_the_start_depends_on_the_seed_alone() -> None:
    first, same, other = (
        FlatParameters(SHAPES, lr=0.01, seed=seed, device=CPU).parameters_by_name() for seed in (1, 1, 2)
    )
    assert torch.equal(first["a"], same["a"])
    assert not torch.equal(first["a"], other["a"])
    assert first["b"].tolist() == [0, 0, 0]
    assert first["c"].tolist() == [-2.0]
