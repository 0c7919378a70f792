"""What models trained by gradients share: hashed tables, dense parameters, one forward and one step."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np
import torch
from torch import Tensor

from prectr.model.features.batch import Batch, Reads
from prectr.model.features.hashed_features import Rows
from prectr.model.layers.flat_parameters import DenseParameters
from prectr.model.layers.gradients import Gradients, RowGradients
from prectr.model.layers.hashed_embedding import Gathered, HashedTable
from prectr.model.models.online_model import Forward


class Memory(Protocol):
    """What a model remembers of batches that it has learned from, besides what gradients have changed."""

    def to_add(self, batch: Batch) -> RowGradients:
        """What `add` is to be given of a batch; it adds up over ranks."""

    def nothing(self) -> RowGradients:
        """That of no batch."""

    def add(self, change: RowGradients) -> None:
        """Remember a batch."""

    def export(self) -> dict[str, Tensor]:
        """All that is remembered."""

    def restore(self, exported: dict[str, Tensor]) -> None:
        """Take up what `export` gave."""


_NO_MEMORIES: Final[Mapping[str, Memory]] = MappingProxyType({})


class NeuralModel:
    """A model of hashed tables (sparse gradients) and dense parameters.

    A subclass says which rows of which table a batch needs (`rows`) and how they become logits (`logits`);
    one with more than the click loss adds its own parts in `losses`, one that remembers gives its `memories`.
    """

    reads = Reads()

    def __init__(
        self,
        tables: Mapping[str, HashedTable],
        dense: DenseParameters,
        device: torch.device,
        memories: Mapping[str, Memory] = _NO_MEMORIES,
    ) -> None:
        self._tables = dict(tables)
        self._dense = dense
        self._device = device
        self._memories = dict(memories)

    def rows(self, batch: Batch) -> dict[str, Rows]:
        """The rows of each table that the batch needs, in the shape that `logits` expects."""
        raise NotImplementedError

    def logits(self, batch: Batch, looked_up: Mapping[str, Tensor]) -> Tensor:
        """Logits float32[N] from the rows looked up, by table, each [*rows.shape, columns]."""
        raise NotImplementedError

    def losses(self, batch: Batch, logits: Tensor) -> dict[str, Tensor]:
        """The parts of the loss, each a mean over the batch's N impressions."""
        clicks = self.tensor(batch.labels)
        return {"click": torch.nn.functional.binary_cross_entropy_with_logits(logits, clicks)}

    def tensor(self, array: np.typing.NDArray[np.generic]) -> Tensor:
        """An array as float32 on the model's device."""
        return torch.from_numpy(array.astype(np.float32)).to(self._device)

    def forward(self, batch: Batch) -> Forward:
        """One pass: the logits that are measured are those that are learned from."""
        gathered = {name: self._tables[name].gather(rows) for name, rows in self.rows(batch).items()}
        logits = self.logits(batch, {name: each.look_up() for name, each in gathered.items()})
        return Forward(logits.detach(), self.losses(batch, logits), gathered, self.remembered(batch))

    def remembered(self, batch: Batch) -> dict[str, RowGradients]:
        """What the model's memories are to be given of a batch, by name."""
        return {name: memory.to_add(batch) for name, memory in self._memories.items()}

    def gradients(self, batch: Batch, forward: Forward) -> Gradients:
        """Dense parameters: of the mean loss; rows: of the sum. And what is to be remembered.

        An id's gradient is then what its own impressions say, whatever else is in the batch.
        """
        total = torch.stack(list(forward.losses.values())).sum()
        total.backward()  # type: ignore[no-untyped-call]
        tables = {
            name: RowGradients(gathered.unique, _gradient(gathered) * batch.impressions)
            for name, gathered in forward.gathered.items()
        }
        return Gradients(batch.impressions, self._dense.gradient, {**tables, **forward.kept})

    def no_gradients(self) -> Gradients:
        """Zero for the dense parameters, and no rows."""
        rows = {name: table.no_gradient() for name, table in self._tables.items()}
        nothing = {name: memory.nothing() for name, memory in self._memories.items()}
        return Gradients(0, self._dense.gradient, {**rows, **nothing})

    def step(self, gradients: Gradients) -> None:
        """Change rows and dense parameters, each by its own rule; and remember."""
        for name, table in self._tables.items():
            table.apply(gradients.tables[name])
        for name, memory in self._memories.items():
            memory.add(gradients.tables[name])
        with torch.no_grad():
            self._dense.step(gradients.dense)

    def score(self, batch: Batch) -> Tensor:
        """Logits float32[N], nothing learned."""
        with torch.no_grad():
            return self.logits(batch, {name: self._tables[name].read(rows) for name, rows in self.rows(batch).items()})

    def weights(self) -> dict[str, Tensor]:
        """Tables and dense parameters by name."""
        return {
            **{f"table.{name}": table.values for name, table in self._tables.items()},
            **{f"dense.{name}": tensor for name, tensor in self._dense.named().items()},
        }

    def export(self) -> dict[str, Tensor]:
        """Changed rows of the tables, dense parameters, their optimizers' state, and the memories."""
        exported = {f"dense.{name}": tensor for name, tensor in self._dense.export().items()}
        for table, values in self._tables.items():
            exported.update({f"table.{table}.{name}": tensor for name, tensor in values.export().items()})
        for memory, remembered in self._memories.items():
            exported.update({f"{memory}.{name}": tensor for name, tensor in remembered.export().items()})
        return exported

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `export` gave."""
        self._dense.restore(_under("dense.", tensors))
        for name, table in self._tables.items():
            table.restore(_under(f"table.{name}.", tensors))
        for name, memory in self._memories.items():
            memory.restore(_under(f"{name}.", tensors))


def _gradient(gathered: Gathered) -> Tensor:
    gradient = gathered.values.grad
    return torch.zeros_like(gathered.values) if gradient is None else gradient


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
