"""Passes over data with AdamW, a warm-up and a linear decay of the step."""

import math
from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor, nn

from prectr.state.errors import TrainingError

_WARM_UP: Final = 0.1
_DECAY: Final = 0.01
_CLIP: Final = 1.0


class Schedule:
    """AdamW (Loshchilov and Hutter 2019) over a number of steps: the rate grows over the first tenth, then falls."""

    def __init__(self, parameters: Iterable[nn.Parameter], *, rate: float, steps: int) -> None:
        """Take the parameters; biases and norms (one axis) do not decay."""
        parameters = list(parameters)
        groups = [
            {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": _DECAY},
            {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), eps=1e-6)
        self._parameters = parameters
        self._rate = rate
        self._steps = steps
        self._warm_up = max(1, math.ceil(_WARM_UP * steps))
        self._done = 0

    def step(self, loss: Tensor, what: str) -> float:
        """Go one step down; TrainingError, before any weight is touched, if the loss is not finite."""
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss of {what} is {value} at step {self._done}: try a smaller rate, or look at the labels"
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._parameters, _CLIP)
        left = (self._steps - self._done) / max(1, self._steps - self._warm_up)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * min((self._done + 1) / self._warm_up, max(left, 0.0))
        self._optimizer.step()
        self._done += 1
        return value
