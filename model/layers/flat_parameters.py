"""Dense parameters in one flat buffer, so that a step of the optimizer is a few operations, not a few each."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Module, Parameter


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """A parameter to be made: uniform in `middle` ± `bound`."""

    shape: tuple[int, ...]
    bound: float
    center: float = 0.0

    @staticmethod
    def he_uniform(inputs: int, outputs: int) -> "ParameterSpec":
        """Weights [outputs, inputs] before a ReLU (He et al. 2015, uniform)."""
        return ParameterSpec((outputs, inputs), math.sqrt(6.0 / inputs))

    @staticmethod
    def zeros(*size: int) -> "ParameterSpec":
        """Zeros."""
        return ParameterSpec(size, 0.0)

    @staticmethod
    def constant(value: float, *size: int) -> "ParameterSpec":
        """The same value everywhere."""
        return ParameterSpec(size, 0.0, value)


class FlatParameters:
    """Named parameters that share one buffer of values and one of gradients, with Adam (Kingma and Ba 2015)."""

    def __init__(
        self,
        specs: dict[str, ParameterSpec],
        *,
        lr: float,
        seed: int,
        device: torch.device,
        module: tuple[str, Module, float] | None = None,
    ) -> None:
        """Make the parameters in the order given, with random numbers from `seed` alone (made on the CPU).

        adopted: name, module and step of a network that is trained with them: its parameters move into the buffers,
        with the values that they have.
        """
        module_parameters = [] if module is None else list(module[1].named_parameters())
        own_size = sum(math.prod(shape.shape) for shape in specs.values())
        total = own_size + sum(parameter.numel() for _, parameter in module_parameters)
        generator = torch.Generator().manual_seed(seed)
        self._values = torch.zeros(total, device=device)
        self._gradient = torch.zeros(total, device=device)
        self._exp_avg = torch.zeros(total, device=device)
        self._exp_avg_sq = torch.zeros(total, device=device)
        self._steps = 0
        self._lr_groups = [(slice(0, own_size), lr)]
        self._parameters: dict[str, Tensor] = {}
        offset = 0
        for name, spec in specs.items():
            size = math.prod(spec.shape)
            span = slice(offset, offset + size)
            initial = (torch.rand(size, generator=generator) * 2 - 1) * spec.bound + spec.center
            self._values[span] = initial.to(device)
            parameter = self._values[span].view(spec.shape).detach().requires_grad_()
            parameter.grad = self._gradient[span].view(spec.shape)
            self._parameters[name] = parameter
            offset += size
        if module is not None:
            self._flatten_module(module[0], module_parameters, offset)
            self._lr_groups.append((slice(own_size, total), module[2]))

    def _flatten_module(self, prefix: str, parameters: list[tuple[str, Parameter]], offset: int) -> None:
        for name, parameter in parameters:
            span = slice(offset, offset + parameter.numel())
            self._values[span] = parameter.data.flatten().to(self._values.device)
            parameter.data = self._values[span].view(parameter.shape)
            parameter.grad = self._gradient[span].view(parameter.shape)
            self._parameters[f"{prefix}.{name}"] = parameter
            offset = span.stop

    def __getitem__(self, name: str) -> Tensor:
        return self._parameters[name]

    @property
    def gradient(self) -> Tensor:
        """float32[D]: what backward has added up since the last step; the buffer itself."""
        return self._gradient

    def step(self, gradient: Tensor) -> None:
        """One step of Adam; the buffer of gradients starts at zero again."""
        self._steps += 1
        self._exp_avg.lerp_(gradient, 1 - _BETA1)
        self._exp_avg_sq.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        bias_correction1 = 1 - _BETA1**self._steps
        bias_correction2_sqrt = math.sqrt(1 - _BETA2**self._steps)
        denominator = (self._exp_avg_sq.sqrt() / bias_correction2_sqrt).add_(_EPS)
        for span, lr in self._lr_groups:
            self._values[span].addcdiv_(self._exp_avg[span], denominator[span], value=-lr / bias_correction1)
        self._gradient.zero_()

    def parameters_by_name(self) -> dict[str, Tensor]:
        """The parameters, by name; views of the shared buffer."""
        return {name: parameter.detach() for name, parameter in self._parameters.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Values and optimizer state, on the CPU."""
        return {
            "values": self._values.cpu(),
            "mean": self._exp_avg.cpu(),
            "square": self._exp_avg_sq.cpu(),
            "steps": torch.tensor([self._steps], dtype=torch.int64),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up what `export` gave."""
        self._values.copy_(state["values"])
        self._exp_avg.copy_(state["mean"])
        self._exp_avg_sq.copy_(state["square"])
        self._steps = int(state["steps"].item())


_BETA1 = 0.9
_BETA2 = 0.999
_EPS = 1e-8
