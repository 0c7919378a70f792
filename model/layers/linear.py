"""Linear maps whose initial values depend on a seed alone, not on torch's global random state."""

import math

import torch
from torch import Generator, Tensor
from torch.nn import Module, Parameter


def uniform_parameter(*shape: int, bound: float, generator: Generator, center: float = 0.0) -> Parameter:
    """Return a float32 parameter, uniform in `center` ± `bound`.

    Each parameter consumes one random number per element, constant ones too: how one parameter starts does not
    change the initial values of those made after it.
    """
    values = torch.rand(math.prod(shape), generator=generator) * 2 - 1
    return Parameter((values * bound + center).view(shape))


def he_bound(inputs: int) -> float:
    """Return the bound of uniform weights before a ReLU (He et al. 2015)."""
    return math.sqrt(6.0 / inputs)


class Linear(Module):
    """y = x·Wᵀ + b, with W float32[outputs, inputs] uniform in `center` ± `bound` and b constant.

    Args:
        inputs: columns of x.
        outputs: columns of y.
        generator: source of the initial values, on the CPU.
        bound: of the initial weights; 0 makes all of them `center`.
        center: of the initial weights.
        bias: initial bias; None for a map without one.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        generator: Generator,
        *,
        bound: float = 0.0,
        center: float = 0.0,
        bias: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = uniform_parameter(outputs, inputs, bound=bound, center=center, generator=generator)
        self.bias = None if bias is None else uniform_parameter(outputs, bound=0.0, center=bias, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """float32[…, outputs] from float32[…, inputs]."""
        return torch.nn.functional.linear(x, self.weight, self.bias)
