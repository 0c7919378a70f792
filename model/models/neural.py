"""What models trained by gradients share: hashed tables, dense parameters, one forward and one step."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np
import torch
from torch import Tensor

from prectr.model.features.batch import Batch, FeatureNeeds
from prectr.model.features.hashed_features import Indices
from prectr.model.layers.flat_parameters import FlatParameters
from prectr.model.layers.gradients import Gradients, SparseGradient
from prectr.model.layers.hashed_embedding import GatheredRows, HashedEmbedding
from prectr.model.models.online_model import ForwardOutput


class OnlineState(Protocol):
    """What a model remembers of batches that it has learned from, besides what gradients have changed."""

    def update_for(self, batch: Batch) -> SparseGradient:
        """What `add` is to be given of a batch; it adds up over ranks."""

    def empty_update(self) -> SparseGradient:
        """That of no batch."""

    def apply(self, update: SparseGradient) -> None:
        """Remember a batch."""

    def state_dict(self) -> dict[str, Tensor]:
        """All that is remembered."""

    def load_state_dict(self, exported: dict[str, Tensor]) -> None:
        """Take up what `export` gave."""


_NO_STATES: Final[Mapping[str, OnlineState]] = MappingProxyType({})


class NeuralModel:
    """A model of hashed tables (sparse gradients) and dense parameters.

    A subclass says which rows of which table a batch needs (`rows`) and how they become logits (`logits`);
    one with more than the click loss adds its own parts in `losses`, one that remembers gives its `memories`.
    """

    feature_needs = FeatureNeeds()

    def __init__(
        self,
        tables: Mapping[str, HashedEmbedding],
        dense: FlatParameters,
        device: torch.device,
        online_states: Mapping[str, OnlineState] = _NO_STATES,
    ) -> None:
        self._tables = dict(tables)
        self._dense = dense
        self._device = device
        self._online_states = dict(online_states)

    def indices(self, batch: Batch) -> dict[str, Indices]:
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

    def forward(self, batch: Batch) -> ForwardOutput:
        """One pass: the logits that are measured are those that are learned from."""
        gathered = {name: self._tables[name].gather(rows) for name, rows in self.indices(batch).items()}
        logits = self.logits(batch, {name: table_rows.lookup() for name, table_rows in gathered.items()})
        return ForwardOutput(logits.detach(), self.losses(batch, logits), gathered, self.state_updates(batch))

    def state_updates(self, batch: Batch) -> dict[str, SparseGradient]:
        """What the model's memories are to be given of a batch, by name."""
        return {name: state.update_for(batch) for name, state in self._online_states.items()}

    def gradients(self, batch: Batch, forward: ForwardOutput) -> Gradients:
        """Dense parameters: of the mean loss; rows: of the sum. And what is to be remembered.

        An id's gradient is then what its own impressions say, whatever else is in the batch.
        """
        total = torch.stack(list(forward.losses.values())).sum()
        total.backward()  # type: ignore[no-untyped-call]
        tables = {
            name: SparseGradient(gathered.indices, _gradient(gathered) * batch.impressions)
            for name, gathered in forward.gathered.items()
        }
        return Gradients(batch.impressions, self._dense.gradient, {**tables, **forward.state_updates})

    def zero_gradients(self) -> Gradients:
        """Zero for the dense parameters, and no rows."""
        empty_gradients = {name: table.empty_gradient() for name, table in self._tables.items()}
        empty_updates = {name: state.empty_update() for name, state in self._online_states.items()}
        return Gradients(0, self._dense.gradient, {**empty_gradients, **empty_updates})

    def step(self, gradients: Gradients) -> None:
        """Change rows and dense parameters, each by its own rule; and remember."""
        for name, table in self._tables.items():
            table.apply(gradients.tables[name])
        for name, state in self._online_states.items():
            state.apply(gradients.tables[name])
        with torch.no_grad():
            self._dense.step(gradients.dense)

    def score(self, batch: Batch) -> Tensor:
        """Logits float32[N], nothing learned."""
        with torch.no_grad():
            return self.logits(
                batch, {name: self._tables[name].read(rows) for name, rows in self.indices(batch).items()}
            )

    def weights(self) -> dict[str, Tensor]:
        """Tables and dense parameters by name."""
        return {
            **{f"table.{name}": table.values for name, table in self._tables.items()},
            **{f"dense.{name}": tensor for name, tensor in self._dense.parameters_by_name().items()},
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Changed rows of the tables, dense parameters, their optimizers' state, and the memories."""
        exported = {f"dense.{name}": tensor for name, tensor in self._dense.state_dict().items()}
        for table, values in self._tables.items():
            exported.update({f"table.{table}.{name}": tensor for name, tensor in values.state_dict().items()})
        for state_name, state in self._online_states.items():
            exported.update({f"{state_name}.{name}": tensor for name, tensor in state.state_dict().items()})
        return exported

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `export` gave."""
        self._dense.load_state_dict(_with_prefix("dense.", tensors))
        for name, table in self._tables.items():
            table.load_state_dict(_with_prefix(f"table.{name}.", tensors))
        for name, state in self._online_states.items():
            state.load_state_dict(_with_prefix(f"{name}.", tensors))


def _gradient(gathered: GatheredRows) -> Tensor:
    gradient = gathered.values.grad
    return torch.zeros_like(gathered.values) if gradient is None else gradient


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
