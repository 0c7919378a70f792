"""AdamW with warm-up and linear decay of the learning rate."""

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
    """AdamW (Loshchilov and Hutter 2019); the rate rises over the first tenth of the steps, then falls to zero."""

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, steps: int) -> None:
        """Biases and norms (one axis) get no weight decay."""
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
        """Take one step; TrainingError: the loss is not finite, and no weight has changed."""
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss of {loss_name} is {value} at step {self._step}: lower the learning rate, or check the labels"
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
