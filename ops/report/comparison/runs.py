"""Compares the models of two runs over the same examples."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from prectr.model.quality.baselines import BASELINES
from prectr.model.quality.paired import Interval, MetricSample, ModelSample, differences_of, interval_of
from prectr.ops.report.comparison.samples import RunSamples, read_samples
from prectr.state.errors import UsageError


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A metric of a model, with its 95 % interval over users; None where the run keeps no replicates."""

    value: float | None
    by_user: Interval | None


class RunDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A metric of a model of the first run beside that of a model of the second.

    difference: second less first; None if other pages were scored. by_page, by_user: its paired 95 % intervals;
    None where a run keeps no replicates.
    """

    first_model: str
    second_model: str
    metric: str
    first: Figure
    second: Figure
    difference: float | None
    by_page: Interval | None
    by_user: Interval | None


class RunComparison(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison of two runs.

    first, second: their folders. same_examples: whether both have the same examples, so that they can be compared.
    settings: values of the first and the second run, of every setting that differs. differences: by model and metric.
    """

    first: str
    second: str
    same_examples: bool
    settings: dict[str, tuple[Any, Any]]
    differences: list[RunDifference]


def compare_runs(first: Path, second: Path, models: Sequence[str] = ()) -> RunComparison:
    """Compare the models that two runs share, or each with each if they share none.

    Args:
        first, second: run folders.
        models: compare only these.

    Raises:
        InputError: a folder has no report.
        UsageError: a run has no model, or not one of `models`.
    """
    one, other = read_samples(first), read_samples(second)
    same = one.examples_sha256 == other.examples_sha256
    pairs = _pairs(_models(first, one, models), _models(second, other, models))
    return RunComparison(
        first=str(first),
        second=str(second),
        same_examples=same,
        settings={
            name: (one.config.get(name), other.config.get(name))
            for name in sorted(one.config.keys() | other.config.keys())
            if one.config.get(name) != other.config.get(name)
        },
        differences=[found for pair in pairs for found in _compare(*pair, same_examples=same)],
    )


def _models(run_dir: Path, run: RunSamples, wanted: Sequence[str]) -> list[ModelSample]:
    """The models of a run; the baselines depend on the examples alone."""
    found = {model.model: model for model in run.models if model.model not in BASELINES}
    if not found:
        raise UsageError(f"{run_dir} has no model: its replay was run with --no-train")
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UsageError(f"{run_dir} has no model {missing[0]}: it has {', '.join(found)}")
    return [found[name] for name in wanted or found]


def _pairs(first: Sequence[ModelSample], second: Sequence[ModelSample]) -> list[tuple[ModelSample, ModelSample]]:
    by_name = {model.model: model for model in second}
    shared = [(model, by_name[model.model]) for model in first if model.model in by_name]
    return shared or [(one, other) for one in first for other in second]


def _compare(first: ModelSample, second: ModelSample, *, same_examples: bool) -> Iterator[RunDifference]:
    # The last pages of a run that was not flushed may not have been scored yet.
    is_paired = same_examples and first.pages == second.pages
    paired = {each.metric: each for each in differences_of(second, first)} if is_paired else {}
    for name in first.metrics:
        found = paired.get(name)
        yield RunDifference(
            first_model=first.model,
            second_model=second.model,
            metric=name,
            first=_figure(first.metrics[name]),
            second=_figure(second.metrics[name]),
            difference=None if found is None else found.difference,
            by_page=None if found is None else found.by_page,
            by_user=None if found is None else found.by_user,
        )


def _figure(sample: MetricSample) -> Figure:
    return Figure(value=sample.value, by_user=interval_of(sample))
