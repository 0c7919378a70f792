"""Passes over data with AdamW, a warm-up and a linear decay of the step."""

import math
from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor, nn

from prectr.state.errors import TrainingError

_WARMUP_RATIO: Final = 0.1
_WEIGHT_DECAY: Final = 0.01
_MAX_GRAD_NORM: Final = 1.0


class ScheduledAdamW:
    """AdamW (Loshchilov and Hutter 2019) over a number of steps: the rate grows over the first tenth, then falls."""

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, steps: int) -> None:
        """Take the parameters; biases and norms (one axis) do not decay."""
        parameters = list(parameters)
        groups = [
            {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": _WEIGHT_DECAY},
            {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), eps=1e-6)
        self._parameters = parameters
        self._lr = lr
        self._steps = steps
        self._warmup_steps = max(1, math.ceil(_WARMUP_RATIO * steps))
        self._step = 0

    def step(self, loss: Tensor, loss_name: str) -> float:
        """Go one step down; TrainingError, before any weight is touched, if the loss is not finite."""
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss of {loss_name} is {value} at step {self._step}: try a smaller rate, or look at the labels"
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._parameters, _MAX_GRAD_NORM)
        decay = (self._steps - self._step) / max(1, self._steps - self._warmup_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = self._lr * min((self._step + 1) / self._warmup_steps, max(decay, 0.0))
        self._optimizer.step()
        self._step += 1
        return value
