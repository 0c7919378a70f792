"""The tensors of a checkpoint, compared with those of a new model before any of them is copied."""

from collections.abc import Iterable, Mapping
from typing import Final

from torch import Tensor

_ROW_LISTS: Final = ("rows", "slots")
"""Last part of the name of a tensor that lists rows; its siblings have one entry for each of them."""
_NOT_NEGATIVE: Final = frozenset({"square", "squares", "n", "step", "steps", "sums", "impressions", "clicks"})
"""Last part of the name of a tensor of counts, or of sums of squares."""
_NAMED: Final = 3


def require_tensors(saved: Mapping[str, Tensor], untrained: Mapping[str, Tensor]) -> None:
    """Check tensors that are to be restored into a new model.

    Args:
        saved: the tensors.
        untrained: those that the new model would save itself: names, dtypes and shapes are to be the same, but for the
            rows that training has changed, of which a new model has none.

    Raises:
        ValueError: a tensor is missing, unknown, of another dtype or shape, or negative where it counts.
    """
    _require_names(saved, untrained)
    for name, tensor in saved.items():
        wanted = untrained[name]
        shape = _shape(name, wanted, saved, untrained)
        if tensor.dtype != wanted.dtype or tensor.shape != shape:
            raise ValueError(
                f"{name} is {_described(tensor.dtype, tensor.shape)}, not {_described(wanted.dtype, shape)}"
            )
    for name, tensor in saved.items():
        if name.rpartition(".")[2] in _NOT_NEGATIVE and tensor.numel() and tensor.min() < 0:
            raise ValueError(f"{name} holds {tensor.min().item()}")


def _require_names(saved: Iterable[str], wanted: Iterable[str]) -> None:
    missing, unknown = sorted(set(wanted) - set(saved)), sorted(set(saved) - set(wanted))
    for kind, names in (("missing", missing), ("unknown", unknown)):
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            raise ValueError(f"{', '.join(names[:_NAMED])}{more}: {kind}")


def _shape(name: str, wanted: Tensor, saved: Mapping[str, Tensor], untrained: Mapping[str, Tensor]) -> tuple[int, ...]:
    """The shape that a saved tensor must have: that of the new model's, with as many rows as are listed beside it."""
    shape = tuple(wanted.shape)
    rows = _row_list(name, untrained)
    return shape if rows is None else (saved[rows].numel(), *shape[1:])


def _row_list(name: str, names: Mapping[str, Tensor]) -> str | None:
    """The tensor that lists the rows of this one: beside it, or a level above (optimizer state)."""
    prefix = name
    while prefix:
        prefix = prefix.rpartition(".")[0]
        for leaf in _ROW_LISTS:
            if f"{prefix}.{leaf}" in names:
                return f"{prefix}.{leaf}" if len(names[name].shape) and not names[name].shape[0] else None
    return None


def _described(dtype: object, shape: Iterable[int]) -> str:
    return f"{str(dtype).removeprefix('torch.')}{list(shape)}"
