"""Models trained by backpropagation: hashed tables, dense modules, one forward pass and one step."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from prectr.model.features.batch import Batch, FeatureNeeds
from prectr.model.features.hashed_features import Indices
from prectr.model.features.level_prior import Bools
from prectr.model.layers.flat_parameters import FlatParameters, ParameterGroup
from prectr.model.layers.gradients import Gradients, SparseGradient, StateUpdate
from prectr.model.layers.hashed_embedding import GatheredRows, HashedEmbedding
from prectr.model.models.candidate_levels import learned_levels, score_candidates
from prectr.model.models.online_model import ForwardOutput
from prectr.model.models.prefixed_tensors import add_prefix, select_prefix


class OnlineState(Protocol):
    """State that a model accumulates over the batches it has learned from, without gradients."""

    def update_for(self, batch: Batch) -> StateUpdate:
        """Compute the update of a batch; updates of several ranks can be summed."""

    def empty_update(self) -> StateUpdate:
        """An empty update (empty batch)."""

    def apply(self, update: StateUpdate) -> None:
        """Add an update to the state."""

    def state_dict(self) -> dict[str, Tensor]:
        """The whole state."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""


_NO_STATES: Final[Mapping[str, OnlineState]] = MappingProxyType({})


class NeuralModel(Module):
    """A model of hashed tables, which get sparse gradients, and of submodules with dense parameters.

    A subclass names the rows of each table that a batch needs (`indices`) and turns them into logits (`logits`); one
    with more than the click loss overrides `forward`. Its constructor ends with `flatten_parameters`. `state_dict()`
    lists the dense parameters by dotted names; tables and optimizer state are in `training_state()`.
    """

    feature_needs = FeatureNeeds()

    def __init__(
        self,
        tables: Mapping[str, HashedEmbedding],
        device: torch.device,
        online_states: Mapping[str, OnlineState] = _NO_STATES,
    ) -> None:
        super().__init__()
        self._tables = dict(tables)
        self._device = device
        self._online_states = dict(online_states)
        self._dense = FlatParameters((), device)

    def flatten_parameters(self, lr: float, module_lrs: Mapping[str, float] = MappingProxyType({})) -> None:
        """Move the submodules to the device and their trainable parameters into flat buffers, to be trained by Adam.

        Args:
            lr: learning rate.
            module_lrs: other learning rates, by the name of the submodule; these come last in the buffers.
        """
        self.to(self._device)
        trainable = {name: each for name, each in self.named_parameters() if each.requires_grad}
        modules = {name: name.partition(".")[0] for name in trainable}
        groups = [ParameterGroup({n: each for n, each in trainable.items() if modules[n] not in module_lrs}, lr)]
        for module, module_lr in module_lrs.items():
            groups.append(ParameterGroup({n: each for n, each in trainable.items() if modules[n] == module}, module_lr))
        self._dense = FlatParameters(groups, self._device)

    def indices(self, batch: Batch) -> dict[str, Indices]:
        """The rows of each table that the batch needs, in the shape that `logits` expects."""
        raise NotImplementedError

    def logits(self, batch: Batch, looked_up: Mapping[str, Tensor]) -> Tensor:
        """Logits float32[N] from the rows looked up, by table, float32[*indices.shape, columns]."""
        raise NotImplementedError

    def tensor(self, array: np.typing.NDArray[np.generic]) -> Tensor:
        """The array as float32 on the model's device."""
        return torch.from_numpy(array.astype(np.float32)).to(self._device)

    def forward(self, batch: Batch) -> ForwardOutput:
        """Score the batch once: the measured logits are the ones that are learned from."""
        gathered = self.gather_rows(batch)
        logits = self.logits(batch, {name: rows.lookup() for name, rows in gathered.items()})
        click = torch.nn.functional.binary_cross_entropy_with_logits(logits, self.tensor(batch.labels))
        return ForwardOutput(logits.detach(), {"click": click}, gathered, self.state_updates(batch))

    def gather_rows(self, batch: Batch) -> dict[str, GatheredRows]:
        """The rows that the batch needs, ready to collect gradients, by table."""
        return {name: self._tables[name].gather(indices) for name, indices in self.indices(batch).items()}

    def read_rows(self, batch: Batch) -> dict[str, Tensor]:
        """The rows that the batch needs, looked up without gradients, by table."""
        return {name: self._tables[name].read(indices) for name, indices in self.indices(batch).items()}

    def state_updates(self, batch: Batch) -> dict[str, StateUpdate]:
        """The updates of a batch to the model's online states, by name."""
        return {name: state.update_for(batch) for name, state in self._online_states.items()}

    def gradients(self, batch: Batch, forward: ForwardOutput) -> Gradients:
        """Gradients of dense parameters, of the mean loss; of table rows, of the summed loss.

        The gradient of an id's row then depends on its own impressions, not on the size of the batch.
        """
        total = torch.stack(list(forward.losses.values())).sum()
        total.backward()  # type: ignore[no-untyped-call]
        tables = {
            name: SparseGradient(gathered.indices, _gradient(gathered) * batch.impressions)
            for name, gathered in forward.gathered.items()
        }
        return Gradients(batch.impressions, self._dense.gradient, tables, forward.state_updates)

    def zero_gradients(self) -> Gradients:
        """Zero for the dense parameters, no table rows, no state updates."""
        return Gradients(
            0,
            self._dense.gradient,
            {name: table.empty_gradient() for name, table in self._tables.items()},
            {name: state.empty_update() for name, state in self._online_states.items()},
        )

    def parameter_at(self, index: int) -> str:
        """The dotted name of the dense parameter that holds an element of `Gradients.dense`."""
        return self._dense.name_at(index)

    def step(self, gradients: Gradients) -> None:
        """Update table rows and dense parameters by their optimizers, and the online states."""
        for name, table in self._tables.items():
            table.apply(gradients.tables[name])
        for name, state in self._online_states.items():
            state.apply(gradients.state_updates[name])
        with torch.no_grad():
            self._dense.step(gradients.dense)

    def score(self, batch: Batch) -> Tensor:
        """Logits float32[N], without learning."""
        with torch.no_grad():
            return score_candidates(
                lambda candidates: self.logits(candidates, self.read_rows(candidates)), batch, self.learned_levels()
            )

    def learned_levels(self) -> Bools:
        """bool[4]: the levels learned from."""
        return learned_levels(self._tables["position"])

    def weights(self) -> dict[str, Tensor]:
        """Tables and trained dense parameters by name."""
        tables = {f"table.{name}": table.values for name, table in self._tables.items()}
        return tables | add_prefix("dense.", self._dense.parameters_by_name())

    def training_state(self) -> dict[str, Tensor]:
        """Changed rows of the tables, dense parameters, their optimizers' state, and the online states."""
        tensors = add_prefix("dense.", self._dense.state_dict())
        for name, table in self._tables.items():
            tensors |= add_prefix(f"table.{name}.", table.state_dict())
        for name, state in self._online_states.items():
            tensors |= add_prefix(f"{name}.", state.state_dict())
        return tensors

    def load_training_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `training_state` returned."""
        self._dense.load_state_dict(select_prefix("dense.", tensors))
        for name, table in self._tables.items():
            table.load_state_dict(select_prefix(f"table.{name}.", tensors))
        for name, state in self._online_states.items():
            state.load_state_dict(select_prefix(f"{name}.", tensors))


def _gradient(gathered: GatheredRows) -> Tensor:
    gradient = gathered.values.grad
    return torch.zeros_like(gathered.values) if gradient is None else gradient
