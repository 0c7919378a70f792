"""Settles `batch_span` of a replay that was not given one: a sparse log would be learned from in batches of one page.

A training step of a model that reads text costs tens of milliseconds, whatever the size of the batch. A live trainer
closes a batch after `batch_span` all the same, so as to be up to date; a replay gains nothing by that.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from prectr.model.config import TrainerConfig
from prectr.ops.settings.loader import Settings
from prectr.state.setting import format_duration
from prectr.stream.readers import open_log
from prectr.stream.replay.page_rate import page_rate
from prectr.stream.replay.run_checkpoint import list_checkpoints, read_checkpoint

SPARSE_BATCH_SPAN: Final = 86_400.0
"""Of a replay of a sparse log, in seconds."""
_SECONDS_PER_MINUTE: Final = 60.0
_log = logging.getLogger(__name__)


def settle_batch_span(
    settings: Settings, files: Sequence[str], run_dir: Path, models: Sequence[str], *, restart: bool
) -> Settings:
    """Return the settings, with a `batch_span` of a day where none was given and the log is sparse; and say so.

    A log is sparse where `batch_span` passes before there are `batch_pages` pages. The span stays as it is where no
    model reads text. A run that is resumed keeps the span that it began with.

    Raises:
        UsageError, InputError: the log cannot be opened.
        CheckpointError: the newest checkpoint of the run cannot be read.
    """
    trainer = settings.trainer
    if "batch_span" in settings.sources or not models:
        return settings
    began_with = None if restart else _span_of_run(run_dir)
    if began_with is not None:
        return replace(settings, trainer=replace(trainer, batch_span=began_with))
    rate = page_rate(open_log(files))
    if rate is None or rate * trainer.batch_span / _SECONDS_PER_MINUTE >= trainer.batch_pages:
        return settings
    live, chosen = format_duration(trainer.batch_span), format_duration(SPARSE_BATCH_SPAN)
    if not any(_reads_text(trainer, model) for model in models):
        _log.info(
            "batch_span is %s, and the log has %.2g pages a minute: training takes less time, in fewer and larger "
            "batches, with --batch-span %s",
            live,
            rate,
            chosen,
        )
        return settings
    _log.info(
        "batch_span is %s, chosen since the log has %.2g pages a minute: batches of %d pages train sooner than one by "
        "one. A live trainer has %s unless told otherwise; give both the same --batch-span for equal weights",
        chosen,
        rate,
        trainer.batch_pages,
        live,
    )
    return replace(settings, trainer=replace(trainer, batch_span=SPARSE_BATCH_SPAN))


def _reads_text(trainer: TrainerConfig, model: str) -> bool:
    return replace(trainer, model=model).reads_text


def _span_of_run(run_dir: Path) -> float | None:
    """The span that the run in the folder began with; None if there is none, or it trains nothing."""
    checkpoints = list_checkpoints(run_dir / "checkpoints")
    span = read_checkpoint(checkpoints[0]).config.get("batch_span") if checkpoints else None
    return None if span is None else float(span)
