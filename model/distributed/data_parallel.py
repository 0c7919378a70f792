"""What R ranks make of a batch together: each scores its share, all count it and learn from it as a whole."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
import torch
from torch import Tensor

from prectr.model.distributed.process_group import Ranks
from prectr.model.features.batch import Floats, Ints
from prectr.model.features.hashing import U64
from prectr.model.layers.gradients import Gradients, RowGradients
from prectr.model.models.online_model import Forward
from prectr.model.quality.scored_pages import Measured, decode, joined
from prectr.state.errors import TrainingError
from prectr.stream.records import Example


def share(pages: Sequence[Example], ranks: Ranks) -> Sequence[Example]:
    """The pages i ≡ r (mod R) of a batch; none where it has too few."""
    return pages[ranks.rank :: ranks.size]


def places(pages: Sequence[Example], ranks: Ranks) -> Ints:
    """int64[N]: where the impressions of this rank's share stand in the whole batch of `pages`."""
    sizes = np.array([len(page.labels) for page in pages])
    page_of = np.repeat(np.arange(len(pages)), sizes)
    return np.flatnonzero(page_of % ranks.size == ranks.rank)


class _Said(msgspec.Struct, array_like=True):
    """Why this rank cannot learn from its share, or nothing; its share, scored; and keys of `Forward.over`, by part."""

    refusal: str
    pages: list[bytes]
    over: dict[str, bytes]


class Heard(NamedTuple):
    """What is counted of the whole batch; and over what its losses are means, by part and rank."""

    counted: Measured
    over: dict[str, list[U64]]


def hear_all(own: Measured, refusal: str, ranks: Ranks, over: Mapping[str, U64] | None = None) -> Heard:
    """What is counted of the whole batch, from what is of this rank's share.

    refusal: why nothing can be learned from the share; empty where it can. over: keys of its `Forward.over`.

    Raises:
        TrainingError: a rank refuses: all of them say so, and none changes anything.
    """
    keys = {name: part.tobytes() for name, part in (over or {}).items()}
    heard = [_decode(said) for said in ranks.gather(_encode(_Said(refusal, own.encode(), keys)))]
    for said in heard:
        if said.refusal:
            raise TrainingError(said.refusal)
    names = {name for said in heard for name in said.over}
    return Heard(
        joined([decode(said.pages) for said in heard]),
        {name: [np.frombuffer(said.over.get(name, b""), np.uint64) for said in heard] for name in names},
    )


def take_part(forward: Forward, impressions: int, heard: Heard) -> None:
    """Turn the losses that are means over something else than impressions into this rank's part of the whole batch's.

    impressions: of this rank's share. Afterwards Σᵣ Nᵣ·lossᵣ / N, as `add_up` adds, is the mean over all that any rank
    has, each thing once.
    """
    whole = len(heard.counted.labels)
    for name, part in forward.over.items():
        weights = _weights(part.keys, heard.over[name]) * (whole / impressions)
        each = part.each()
        forward.losses[name] = (each * torch.from_numpy(weights.astype(np.float32)).to(each.device)).sum()


def _weights(own: U64, of_all: Sequence[U64]) -> Floats:
    """float64[M]: what each of a rank's things counts for in the mean; one that k ranks have counts for 1/k on each."""
    keys, ranks_with = np.unique(np.concatenate(of_all), return_counts=True)
    weights: Floats = 1.0 / (ranks_with[np.searchsorted(keys, own)] * max(len(keys), 1))
    return weights


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Said).decode


def add_up(own: Gradients, impressions: int, ranks: Ranks) -> Gradients:
    """The gradients of a batch of N `impressions`, from those of this rank's share; the same bits on every rank.

    Dense: Σᵣ Nᵣ·gᵣ / N, in place. Rows: those that took part on any rank, added in order of rank.
    """
    own.dense.mul_(own.impressions / impressions)
    if len(own.dense):
        ranks.add_up(own.dense)
    heard = [_unpack(packed, own.tables) for packed in ranks.gather_tensors(_pack(own.tables))]
    tables = {name: _add_rows([tables[name] for tables in heard]) for name in own.tables}
    return Gradients(impressions, own.dense, tables)


def _add_rows(parts: Sequence[RowGradients]) -> RowGradients:
    rows, place = torch.unique(torch.cat([part.rows for part in parts]), return_inverse=True)
    gradient = parts[0].gradient.new_zeros(len(rows), parts[0].gradient.shape[1])
    # One part after the other, each row once in each: the order of adding does not depend on the device.
    for part, places in zip(parts, torch.split(place, [len(part.rows) for part in parts]), strict=True):
        gradient.index_add_(0, places, part.gradient)
    return RowGradients(rows, gradient)


def _pack(tables: Mapping[str, RowGradients]) -> Tensor:
    """uint8: the number of rows of each table, then the rows of all, then the gradients of all."""
    each = list(tables.values())
    counts = torch.tensor([len(table.rows) for table in each], device=each[0].rows.device)
    parts = [counts, *(table.rows for table in each), *(table.gradient.flatten() for table in each)]
    return torch.cat([part.view(torch.uint8) for part in parts])


def _unpack(packed: Tensor, like: Mapping[str, RowGradients]) -> dict[str, RowGradients]:
    """What `_pack` packed of tables of the same names and columns."""
    columns = [table.gradient.shape[1] for table in like.values()]
    counts = packed[: 8 * len(like)].view(torch.int64).tolist()
    sizes = [8 * len(like), *(8 * count for count in counts)]
    sizes += [4 * count * width for count, width in zip(counts, columns, strict=True)]
    parts = torch.split(packed, sizes)
    rows, gradients = parts[1 : 1 + len(like)], parts[1 + len(like) :]
    return {
        name: RowGradients(rows[number].view(torch.int64), gradients[number].view(torch.float32).view(-1, width))
        for number, (name, width) in enumerate(zip(like, columns, strict=True))
    }
