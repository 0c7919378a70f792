"""`lr`: logistic regression by FTRL-Proximal (McMahan et al. 2013) on position, level and ids."""

import numpy as np
import torch
from torch import Tensor

from model.config import TrainerConfig
from model.embeddings import Ftrl, HashedTable
from model.features import Batch
from model.online import Forward
from model.wide import Rows, bias_rows, id_rows


class LogisticRegression:
    """One weight a feature value; the logit is their sum. No graph: the gradient is closed form."""

    reads_history = False

    def __init__(self, config: TrainerConfig, device: torch.device) -> None:
        self._table = HashedTable(
            config.wide_rows,
            1,
            Ftrl(config.ftrl_alpha, config.ftrl_beta, config.ftrl_l1, config.ftrl_l2),
            seed=config.seed,
            scale=0.0,
            device=device,
        )
        self._size = config.wide_rows
        self._device = device

    def _rows(self, batch: Batch) -> Rows:
        return np.concatenate([bias_rows(batch), id_rows(batch, self._size)], axis=1)

    def forward(self, batch: Batch) -> Forward:
        """Logits and the mean log loss."""
        gathered = self._table.gather(self._rows(batch))
        with torch.no_grad():
            logits = gathered.look_up().sum(dim=(1, 2))
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, self._clicks(batch))
        return Forward(logits, {"click": loss}, {"weights": gathered})

    def learn(self, batch: Batch, forward: Forward) -> None:
        """A weight's gradient is Σ (p − y) over its impressions."""
        gathered = forward.gathered["weights"]
        index = gathered.index
        residual = torch.sigmoid(forward.logits) - self._clicks(batch)
        gradient = torch.zeros(len(gathered.unique), device=self._device)
        gradient.index_add_(0, index.flatten(), residual.repeat_interleave(index.shape[1]))
        self._table.apply(gathered, gradient.unsqueeze(1))

    def score(self, batch: Batch) -> Tensor:
        """Logits float32[N]."""
        return self._table.read(self._rows(batch)).sum(dim=(1, 2))

    def _clicks(self, batch: Batch) -> Tensor:
        return torch.from_numpy(batch.labels.astype(np.float32)).to(self._device)

    def weights(self) -> dict[str, Tensor]:
        """The table of weights."""
        return {"weights": self._table.values}

    def export(self) -> dict[str, Tensor]:
        """The rows that have been trained."""
        return {"weights." + name: tensor for name, tensor in self._table.export().items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `export` gave."""
        self._table.restore({name.removeprefix("weights."): tensor for name, tensor in tensors.items()})
