"""Rows of a table or cache as a checkpoint names them, checked before they are written to."""

import torch
from torch import Tensor


def require_rows(rows: Tensor, size: int) -> None:
    """Raise ValueError unless `rows` are distinct and ascending, int64[U], each from 0 to below `size`."""
    if not len(rows):
        return
    if int(rows[0]) < 0 or int(rows[-1]) >= size or not bool(torch.all(rows[1:] > rows[:-1])):
        raise ValueError(
            f"rows from {int(rows.min())} to {int(rows.max())}, not distinct and ascending ones of a table of {size}"
        )
