"""Dense parameters of a module in one flat buffer, so that an optimizer step is a few operations in all."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import torch
from torch import Tensor
from torch.nn import Parameter

_BETA1: Final = 0.9
_BETA2: Final = 0.999
_EPS: Final = 1e-8


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """Parameters, by dotted name, that share a learning rate."""

    parameters: Mapping[str, Parameter]
    lr: float


class FlatParameters:
    """Parameters that share one buffer of values and one of gradients, with Adam (Kingma and Ba 2015).

    The modules keep their `Parameter` objects; values and gradients of these become views of the buffers, in the
    order of the groups.
    """

    def __init__(self, groups: Sequence[ParameterGroup], device: torch.device) -> None:
        """Move the parameters, which are on `device`, into flat buffers with their current values."""
        total = sum(parameter.numel() for group in groups for parameter in group.parameters.values())
        self._values = torch.zeros(total, device=device)
        self._gradient = torch.zeros(total, device=device)
        self._exp_avg = torch.zeros(total, device=device)
        self._exp_avg_sq = torch.zeros(total, device=device)
        # Kept from step to step: fresh memory of this size costs more than what is computed in it.
        self._denominator = torch.zeros(total, device=device)
        self._steps = 0
        self._lr_groups: list[tuple[slice, float]] = []
        self._parameters: dict[str, Parameter] = {}
        end = 0
        for group in groups:
            start = end
            for name, parameter in group.parameters.items():
                span = slice(end, end + parameter.numel())
                self._values[span] = parameter.data.flatten()
                parameter.data = self._values[span].view(parameter.shape)
                parameter.grad = self._gradient[span].view(parameter.shape)
                self._parameters[name] = parameter
                end = span.stop
            self._lr_groups.append((slice(start, end), group.lr))

    @property
    def gradient(self) -> Tensor:
        """float32[D]: the gradient accumulated since the last step; the buffer itself."""
        return self._gradient

    def step(self, gradient: Tensor) -> None:
        """Take one step of Adam and zero the gradient buffer."""
        self._steps += 1
        self._exp_avg.lerp_(gradient, 1 - _BETA1)
        self._exp_avg_sq.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        bias_correction1 = 1 - _BETA1**self._steps
        bias_correction2_sqrt = math.sqrt(1 - _BETA2**self._steps)
        denominator = torch.sqrt(self._exp_avg_sq, out=self._denominator).div_(bias_correction2_sqrt).add_(_EPS)
        for span, lr in self._lr_groups:
            self._values[span].addcdiv_(self._exp_avg[span], denominator[span], value=-lr / bias_correction1)
        self._gradient.zero_()

    def parameters_by_name(self) -> dict[str, Tensor]:
        """The parameters by dotted name, detached; views of the shared buffer."""
        return {name: parameter.detach() for name, parameter in self._parameters.items()}

    def name_at(self, index: int) -> str:
        """The dotted name of the parameter that holds an element of the buffers."""
        ends = accumulate(parameter.numel() for parameter in self._parameters.values())
        return next(name for name, end in zip(self._parameters, ends, strict=True) if index < end)

    def state_dict(self) -> dict[str, Tensor]:
        """Values and optimizer state, on the CPU."""
        return {
            "values": self._values.cpu(),
            "mean": self._exp_avg.cpu(),
            "square": self._exp_avg_sq.cpu(),
            "steps": torch.tensor([self._steps], dtype=torch.int64),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self._values.copy_(state["values"])
        self._exp_avg.copy_(state["mean"])
        self._exp_avg_sq.copy_(state["square"])
        self._steps = int(state["steps"].item())
