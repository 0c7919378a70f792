"""What R ranks make of a batch together: each scores its share, all count it and learn from it as a whole."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
import torch
from torch import Tensor

from prectr.model.distributed.process_group import TorchProcessGroup
from prectr.model.features.batch import Floats, Ints
from prectr.model.features.hashing import U64
from prectr.model.layers.gradients import Gradients, SparseGradient
from prectr.model.models.online_model import ForwardOutput
from prectr.model.quality.scored_pages import ScoredPages, concat, decode
from prectr.state.errors import TrainingError
from prectr.stream.records import Example


def shard(pages: Sequence[Example], process_group: TorchProcessGroup) -> Sequence[Example]:
    """The pages i ≡ r (mod R) of a batch; none where it has too few."""
    return pages[process_group.rank :: process_group.world_size]


def shard_positions(pages: Sequence[Example], process_group: TorchProcessGroup) -> Ints:
    """int64[N]: where the impressions of this rank's share stand in the whole batch of `pages`."""
    sizes = np.array([len(page.labels) for page in pages])
    page_of = np.repeat(np.arange(len(pages)), sizes)
    return np.flatnonzero(page_of % process_group.world_size == process_group.rank)


class _RankMessage(msgspec.Struct, array_like=True):
    """Why this rank cannot learn from its share, or nothing; its share, scored; and keys of `Forward.over`, by part."""

    failure: str
    pages: list[bytes]
    loss_keys: dict[str, bytes]


class GatheredScores(NamedTuple):
    """What is counted of the whole batch; and over what its losses are means, by part and rank."""

    pages: ScoredPages
    loss_keys: dict[str, list[U64]]


def all_gather_scores(
    own: ScoredPages, failure: str, process_group: TorchProcessGroup, loss_keys: Mapping[str, U64] | None = None
) -> GatheredScores:
    """What is counted of the whole batch, from what is of this rank's share.

    refusal: why nothing can be learned from the share; empty where it can. over: keys of its `Forward.over`.

    Raises:
        TrainingError: a rank refuses: all of them say so, and none changes anything.
    """
    keys = {name: part.tobytes() for name, part in (loss_keys or {}).items()}
    messages = [
        _decode(said) for said in process_group.all_gather_bytes(_encode(_RankMessage(failure, own.encode(), keys)))
    ]
    for message in messages:
        if message.failure:
            raise TrainingError(message.failure)
    names = {name for said in messages for name in said.loss_keys}
    return GatheredScores(
        concat([decode(said.pages) for said in messages]),
        {name: [np.frombuffer(said.loss_keys.get(name, b""), np.uint64) for said in messages] for name in names},
    )


def rescale_losses(forward: ForwardOutput, impressions: int, gathered: GatheredScores) -> None:
    """Turn the losses that are means over something else than impressions into this rank's part of the whole batch's.

    impressions: of this rank's share. Afterwards Σᵣ Nᵣ·lossᵣ / N, as `add_up` adds, is the mean over all that any rank
    has, each thing once.
    """
    global_size = len(gathered.pages.labels)
    for name, reduction in forward.loss_reductions.items():
        weights = _weights(reduction.keys, gathered.loss_keys[name]) * (global_size / impressions)
        per_item = reduction.per_item()
        forward.losses[name] = (per_item * torch.from_numpy(weights.astype(np.float32)).to(per_item.device)).sum()


def _weights(own: U64, keys_by_rank: Sequence[U64]) -> Floats:
    """float64[M]: what each of a rank's things counts for in the mean; one that k ranks have counts for 1/k on each."""
    keys, copies = np.unique(np.concatenate(keys_by_rank), return_counts=True)
    weights: Floats = 1.0 / (copies[np.searchsorted(keys, own)] * max(len(keys), 1))
    return weights


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_RankMessage).decode


def all_reduce_gradients(own: Gradients, impressions: int, process_group: TorchProcessGroup) -> Gradients:
    """The gradients of a batch of N `impressions`, from those of this rank's share; the same bits on every rank.

    Dense: Σᵣ Nᵣ·gᵣ / N, in place. Rows: those that took part on any rank, added in order of rank.
    """
    own.dense.mul_(own.impressions / impressions)
    if len(own.dense):
        process_group.all_reduce(own.dense)
    gathered = [_unpack(packed, own.tables) for packed in process_group.all_gather(_pack(own.tables))]
    tables = {name: _sum_sparse([tables[name] for tables in gathered]) for name in own.tables}
    return Gradients(impressions, own.dense, tables)


def _sum_sparse(parts: Sequence[SparseGradient]) -> SparseGradient:
    indices, inverse = torch.unique(torch.cat([part.indices for part in parts]), return_inverse=True)
    values = parts[0].values.new_zeros(len(indices), parts[0].values.shape[1])
    # One part after the other, each row once in each: the order of adding does not depend on the device.
    for part, positions in zip(parts, torch.split(inverse, [len(part.indices) for part in parts]), strict=True):
        values.index_add_(0, positions, part.values)
    return SparseGradient(indices, values)


def _pack(tables: Mapping[str, SparseGradient]) -> Tensor:
    """uint8: the number of rows of each table, then the rows of all, then the gradients of all."""
    gradients = list(tables.values())
    counts = torch.tensor([len(gradient.indices) for gradient in gradients], device=gradients[0].indices.device)
    parts = [counts, *(table.indices for table in gradients), *(table.values.flatten() for table in gradients)]
    return torch.cat([part.view(torch.uint8) for part in parts])


def _unpack(packed: Tensor, like: Mapping[str, SparseGradient]) -> dict[str, SparseGradient]:
    """What `_pack` packed of tables of the same names and columns."""
    columns = [table.values.shape[1] for table in like.values()]
    counts = packed[: 8 * len(like)].view(torch.int64).tolist()
    sizes = [8 * len(like), *(8 * count for count in counts)]
    sizes += [4 * count * width for count, width in zip(counts, columns, strict=True)]
    parts = torch.split(packed, sizes)
    indices, values = parts[1 : 1 + len(like)], parts[1 + len(like) :]
    return {
        name: SparseGradient(indices[index].view(torch.int64), values[index].view(torch.float32).view(-1, width))
        for index, (name, width) in enumerate(zip(like, columns, strict=True))
    }
