"""Numbers that are not finite are found before they are learned from, saved or restored."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from prectr.model.layers.gradients import Gradients


def failure_of_gradients(gradients: Gradients, parameter_at: Callable[[int], str]) -> str:
    """Say which part of the gradients or state updates cannot be applied, and its value; empty if all can.

    A gradient must have a finite square, which every optimizer adds up. Costs one pass over the numbers.

    Args:
        gradients: of a batch, of all ranks.
        parameter_at: names the dense parameter that holds an element of `gradients.dense`.
    """
    rows = [each.values for each in gradients.tables.values()]
    updates = [each.values for each in gradients.state_updates.values()]
    if _sum_of_squares_is_finite([gradients.dense, *rows, *updates]):
        return ""
    # The sum may have overflowed where each number is in order.
    place = _first_without_finite_square(gradients.dense)
    if place is not None:
        return _worded(f"the gradient of {parameter_at(place)}", gradients.dense[place])
    for kind, part in _named_parts(gradients):
        place = _first_without_finite_square(part)
        if place is not None:
            return _worded(kind, part.flatten()[place])
    return ""


def first_not_finite(tensors: Mapping[str, Tensor]) -> tuple[str, float] | None:
    """The first floating tensor that holds a number which is not finite, and that number; None if there is none."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        # A sum is finite only if all its terms are; it may overflow where they are. float16 is summed as float32.
        if math.isfinite(tensor.sum(dtype=torch.float64 if tensor.dtype == torch.float64 else torch.float32).item()):
            continue
        bad = tensor[~torch.isfinite(tensor)]
        if len(bad):
            return name, bad[0].item()
    return None


def _named_parts(gradients: Gradients) -> Iterator[tuple[str, Tensor]]:
    for name, gradient in gradients.tables.items():
        yield f"the gradient of table {name}", gradient.values
    for name, update in gradients.state_updates.items():
        yield f"the update of {name}", update.values


def _sum_of_squares_is_finite(parts: Sequence[Tensor]) -> bool:
    flat = [part.view(-1) for part in parts if len(part)]
    squares = [torch.dot(each, each) for each in flat]
    if len(squares) > 1 and squares[0].is_cuda:
        # One wait for the device instead of one for each part.
        squares = [torch.stack(squares).sum()]
    return math.isfinite(sum([each.item() for each in squares]))


def _first_without_finite_square(part: Tensor) -> int | None:
    flat = part.flatten().cpu()
    bad = (~torch.isfinite(flat * flat)).nonzero()
    return int(bad[0].item()) if len(bad) else None


def _worded(what: str, number: Tensor) -> str:
    value = number.item()
    return f"{what} is {value:.3g}" + (", too large to be squared" if math.isfinite(value) else "")
