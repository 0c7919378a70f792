"""Dense parameters in one flat buffer, so that a step of the optimizer is a few operations, not a few each."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Module, Parameter


@dataclass(frozen=True, slots=True)
class Shape:
    """A parameter to be made: uniform in `middle` ± `bound`."""

    size: tuple[int, ...]
    bound: float
    middle: float = 0.0

    @staticmethod
    def linear(inputs: int, outputs: int) -> "Shape":
        """Weights [outputs, inputs] before a ReLU (He et al. 2015, uniform)."""
        return Shape((outputs, inputs), math.sqrt(6.0 / inputs))

    @staticmethod
    def zeros(*size: int) -> "Shape":
        """Zeros."""
        return Shape(size, 0.0)

    @staticmethod
    def constant(value: float, *size: int) -> "Shape":
        """The same value everywhere."""
        return Shape(size, 0.0, value)


class DenseParameters:
    """Named parameters that share one buffer of values and one of gradients, with Adam (Kingma and Ba 2015)."""

    def __init__(
        self,
        shapes: dict[str, Shape],
        *,
        rate: float,
        seed: int,
        device: torch.device,
        adopted: tuple[str, Module, float] | None = None,
    ) -> None:
        """Make the parameters in the order given, with random numbers from `seed` alone (made on the CPU).

        adopted: name, module and step of a network that is trained with them: its parameters move into the buffers,
        with the values that they have.
        """
        theirs = [] if adopted is None else list(adopted[1].named_parameters())
        made = sum(math.prod(shape.size) for shape in shapes.values())
        total = made + sum(parameter.numel() for _, parameter in theirs)
        random = torch.Generator().manual_seed(seed)
        self._values = torch.zeros(total, device=device)
        self._gradient = torch.zeros(total, device=device)
        self._mean = torch.zeros(total, device=device)
        self._square = torch.zeros(total, device=device)
        self._steps = 0
        self._rates = [(slice(0, made), rate)]
        self._named: dict[str, Tensor] = {}
        place = 0
        for name, shape in shapes.items():
            size = math.prod(shape.size)
            here = slice(place, place + size)
            drawn = (torch.rand(size, generator=random) * 2 - 1) * shape.bound + shape.middle
            self._values[here] = drawn.to(device)
            parameter = self._values[here].view(shape.size).detach().requires_grad_()
            parameter.grad = self._gradient[here].view(shape.size)
            self._named[name] = parameter
            place += size
        if adopted is not None:
            self._adopt(adopted[0], theirs, place)
            self._rates.append((slice(made, total), adopted[2]))

    def _adopt(self, prefix: str, parameters: list[tuple[str, Parameter]], place: int) -> None:
        for name, parameter in parameters:
            here = slice(place, place + parameter.numel())
            self._values[here] = parameter.data.flatten().to(self._values.device)
            parameter.data = self._values[here].view(parameter.shape)
            parameter.grad = self._gradient[here].view(parameter.shape)
            self._named[f"{prefix}.{name}"] = parameter
            place = here.stop

    def __getitem__(self, name: str) -> Tensor:
        return self._named[name]

    @property
    def gradient(self) -> Tensor:
        """float32[D]: what backward has added up since the last step; the buffer itself."""
        return self._gradient

    def step(self, gradient: Tensor) -> None:
        """One step of Adam; the buffer of gradients starts at zero again."""
        self._steps += 1
        self._mean.lerp_(gradient, 1 - _DECAY_MEAN)
        self._square.mul_(_DECAY_SQUARE).addcmul_(gradient, gradient, value=1 - _DECAY_SQUARE)
        correct_mean = 1 - _DECAY_MEAN**self._steps
        correct_root = math.sqrt(1 - _DECAY_SQUARE**self._steps)
        root = (self._square.sqrt() / correct_root).add_(_EPS)
        for here, rate in self._rates:
            self._values[here].addcdiv_(self._mean[here], root[here], value=-rate / correct_mean)
        self._gradient.zero_()

    def named(self) -> dict[str, Tensor]:
        """The parameters, by name; views of the shared buffer."""
        return {name: parameter.detach() for name, parameter in self._named.items()}

    def export(self) -> dict[str, Tensor]:
        """Values and optimizer state, on the CPU."""
        return {
            "values": self._values.cpu(),
            "mean": self._mean.cpu(),
            "square": self._square.cpu(),
            "steps": torch.tensor([self._steps], dtype=torch.int64),
        }

    def restore(self, exported: dict[str, Tensor]) -> None:
        """Take up what `export` gave."""
        self._values.copy_(exported["values"])
        self._mean.copy_(exported["mean"])
        self._square.copy_(exported["square"])
        self._steps = int(exported["steps"].item())


_DECAY_MEAN = 0.9
_DECAY_SQUARE = 0.999
_EPS = 1e-8
