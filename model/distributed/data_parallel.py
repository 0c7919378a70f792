"""Data-parallel training: each of R ranks scores its shard of a batch, and all learn from the whole batch."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
import torch
from torch import Tensor

from prectr.model.distributed.process_group import TorchProcessGroup
from prectr.model.features.batch import Floats, Ints
from prectr.model.features.hashing import U64
from prectr.model.layers.gradients import Gradients, SparseGradient, StateUpdate
from prectr.model.models.online_model import ForwardOutput
from prectr.model.quality.scored_pages import ScoredPages, concat, decode
from prectr.state.errors import TrainingError
from prectr.stream.records import Example

_INDEX_BYTES: Final = 8
_VALUE_BYTES: Final = 4


class _RankMessage(msgspec.Struct, array_like=True):
    """What a rank sends to all others about its shard.

    failure: why it cannot be trained on, or empty. pages: its `ScoredPages`, encoded. loss_keys: the keys of its
    `ForwardOutput.loss_reductions`, uint64 as bytes, by part of the loss.
    """

    failure: str
    pages: list[bytes]
    loss_keys: dict[str, bytes]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_RankMessage).decode


class GatheredScores(NamedTuple):
    """The scored pages of the whole batch, and the keys of its loss reductions, by part of the loss and rank."""

    pages: ScoredPages
    loss_keys: dict[str, list[U64]]


def shard(pages: Sequence[Example], process_group: TorchProcessGroup) -> Sequence[Example]:
    """This rank's pages of a batch, those with i ≡ r (mod R); none if there are too few."""
    return pages[process_group.rank :: process_group.world_size]


def shard_positions(pages: Sequence[Example], process_group: TorchProcessGroup) -> Ints:
    """int64[N]: positions of the impressions of this rank's shard in the whole batch of `pages`."""
    sizes = np.array([len(page.labels) for page in pages])
    page_of = np.repeat(np.arange(len(pages)), sizes)
    return np.flatnonzero(page_of % process_group.world_size == process_group.rank)


def all_gather_scores(
    own: ScoredPages, failure: str, process_group: TorchProcessGroup, loss_keys: Mapping[str, U64] | None = None
) -> GatheredScores:
    """Gather the scored pages of the whole batch from the shards of all ranks.

    Args:
        own: the scored pages of this rank's shard.
        failure: why the shard cannot be trained on; empty if it can.
        process_group: the ranks.
        loss_keys: keys of the shard's `ForwardOutput.loss_reductions`, by part of the loss.

    Raises:
        TrainingError: a rank reports a failure; raised on all ranks, before any of them changes anything.
    """
    keys = {name: part.tobytes() for name, part in (loss_keys or {}).items()}
    payload = _encode(_RankMessage(failure, own.encode(), keys))
    messages = [_decode(received) for received in process_group.all_gather_bytes(payload)]
    for message in messages:
        if message.failure:
            raise TrainingError(message.failure)
    names = {name for message in messages for name in message.loss_keys}
    return GatheredScores(
        concat([decode(message.pages) for message in messages]),
        {name: [np.frombuffer(each.loss_keys.get(name, b""), np.uint64) for each in messages] for name in names},
    )


def rescale_losses(forward: ForwardOutput, impressions: int, gathered: GatheredScores) -> None:
    """Rescale the losses that do not average over impressions to this rank's part of the whole batch's mean.

    impressions: Nᵣ, of this rank's shard. Afterwards Σᵣ Nᵣ·lossᵣ / N, which `all_reduce_gradients` computes, is the
    mean over the distinct items of all ranks.
    """
    global_size = len(gathered.pages.labels)
    for name, reduction in forward.loss_reductions.items():
        weights = _weights(reduction.keys, gathered.loss_keys[name]) * (global_size / impressions)
        per_item = reduction.per_item()
        forward.losses[name] = (per_item * torch.from_numpy(weights.astype(np.float32)).to(per_item.device)).sum()


def _weights(own: U64, keys_by_rank: Sequence[U64]) -> Floats:
    """float64[M]: the weight of each of a rank's items in the mean; an item on k ranks counts 1/k on each."""
    keys, copies = np.unique(np.concatenate(keys_by_rank), return_counts=True)
    weights: Floats = 1.0 / (copies[np.searchsorted(keys, own)] * max(len(keys), 1))
    return weights


def all_reduce_gradients(own: Gradients, impressions: int, process_group: TorchProcessGroup) -> Gradients:
    """Sum the gradients and state updates of all shards; the result is bitwise identical on all ranks.

    Dense: Σᵣ Nᵣ·gᵣ / N, in place. Tables and state updates: summed by row, in the order of ranks.

    Args:
        own: of this rank's shard.
        impressions: N, of the whole batch.
        process_group: the ranks.
    """
    own.dense.mul_(own.impressions / impressions)
    if len(own.dense):
        process_group.all_reduce(own.dense)
    parts: list[SparseGradient | StateUpdate] = [*own.tables.values(), *own.state_updates.values()]
    gathered = [_unpack(packed, parts) for packed in process_group.all_gather(_pack(parts))]
    summed = iter([_sum_rows(rows) for rows in zip(*gathered, strict=True)])
    tables = {name: SparseGradient(*next(summed)) for name in own.tables}
    state_updates = {name: StateUpdate(*next(summed)) for name in own.state_updates}
    return Gradients(impressions, own.dense, tables, state_updates)


def _sum_rows(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Indices and values of the rows of several ranks, summed by index."""
    indices, inverse = torch.unique(torch.cat([part[0] for part in parts]), return_inverse=True)
    values = parts[0][1].new_zeros(len(indices), parts[0][1].shape[1])
    # Rank by rank, each row once per rank: the order of summation does not depend on the device.
    for part, positions in zip(parts, torch.split(inverse, [len(part[0]) for part in parts]), strict=True):
        values.index_add_(0, positions, part[1])
    return indices, values


def _pack(parts: Sequence[SparseGradient | StateUpdate]) -> Tensor:
    """uint8: the number of rows of each part, then the indices of all parts, then their values."""
    counts = torch.tensor([len(part.indices) for part in parts], device=parts[0].indices.device)
    tensors = [counts, *(part.indices for part in parts), *(part.values.flatten() for part in parts)]
    return torch.cat([tensor.view(torch.uint8) for tensor in tensors])


def _unpack(packed: Tensor, like: Sequence[SparseGradient | StateUpdate]) -> list[tuple[Tensor, Tensor]]:
    """Indices and values of the parts that `_pack` packed, which have the columns of `like`."""
    columns = [part.values.shape[1] for part in like]
    counts = packed[: _INDEX_BYTES * len(like)].view(torch.int64).tolist()
    sizes = [_INDEX_BYTES * len(like), *(_INDEX_BYTES * count for count in counts)]
    sizes += [_VALUE_BYTES * count * width for count, width in zip(counts, columns, strict=True)]
    tensors = torch.split(packed, sizes)
    indices, values = tensors[1 : 1 + len(like)], tensors[1 + len(like) :]
    return [
        (rows.view(torch.int64), flat.view(torch.float32).view(-1, width))
        for rows, flat, width in zip(indices, values, columns, strict=True)
    ]
