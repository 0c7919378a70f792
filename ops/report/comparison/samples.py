"""The file `resamples.json` of a run: each model's bootstrap replicates, to compare the run with another one."""

from pathlib import Path
from typing import Any, Final

import msgspec

from prectr.model.quality.paired import MetricSample, ModelSample
from prectr.model.quality.resamples import METRICS
from prectr.ops.json_file import to_json
from prectr.ops.report.writer import write_atomically
from prectr.state.errors import InputError

FILE: Final = "resamples.json"


class RunSamples(msgspec.Struct, frozen=True, kw_only=True):
    """What a run keeps for comparisons. examples_sha256: of its examples. config: all settings, by name."""

    examples_sha256: str
    config: dict[str, Any]
    models: list[ModelSample]


class _ReportedModel(msgspec.Struct):
    model: str
    pages: int
    auc: float | None
    gauc: float | None
    log_loss: float | None


class _Report(msgspec.Struct):
    """The fields of `report.json` that can be compared."""

    examples_sha256: str
    config: dict[str, Any]
    models: list[_ReportedModel]


def write_samples(run_dir: Path, samples: RunSamples) -> None:
    """Write `resamples.json` into `run_dir`; PrectrError: it cannot be written."""
    write_atomically(run_dir / FILE, to_json(samples))


def read_samples(run_dir: Path) -> RunSamples:
    """Read what a run keeps for comparisons; without `resamples.json`, the figures of its report.

    Raises:
        InputError: there is no report, or a file cannot be read.
    """
    path = run_dir / FILE
    try:
        if path.exists():
            return msgspec.json.decode(path.read_bytes(), type=RunSamples)
        path = run_dir / "report.json"
        report = msgspec.json.decode(path.read_bytes(), type=_Report)
    except FileNotFoundError as error:
        raise InputError(f"{run_dir} has no report.json: it is not the folder of a finished run") from error
    except (OSError, msgspec.MsgspecError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return RunSamples(
        examples_sha256=report.examples_sha256, config=report.config, models=[_sample(model) for model in report.models]
    )


def _sample(model: _ReportedModel) -> ModelSample:
    values = msgspec.structs.asdict(model)
    return ModelSample(
        model=model.model,
        pages=model.pages,
        metrics={name: MetricSample(value=values[name], pages=[], users=[]) for name in METRICS},
    )
