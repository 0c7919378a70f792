"""How long a replay will take: the beginning of the log is replayed, here and now."""

import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from prectr.ops.settings.loader import Settings
from prectr.ops.training.evaluated_sinks import make_sinks
from prectr.stream.check.report import CheckReport, Estimate
from prectr.stream.events.contract import ResultPage
from prectr.stream.events.decode import decode_lines
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.join.event_clock import MIN_WATERMARK
from prectr.stream.readers import open_log
from prectr.stream.records import Example
from prectr.stream.replay.local_tasks import EmbeddedTasks
from prectr.stream.sinks.example_sink import ExampleSink

SAMPLE_PAGES: Final = 500
_BATCH_LINES: Final = 512
_CHUNK_PAGES: Final = 16
"""Pages between two looks at the clock. It starts after the first of them, which a model allocates memory for."""
_MAX_SECONDS: Final = 3.0
"""Seconds of training after which a slow model has been measured well enough."""


def estimate_replay(
    files: Sequence[str], settings: Settings, models: Sequence[str], report: CheckReport
) -> Estimate | None:
    """Replay the first 500 pages with their clicks, and extrapolate to the whole log.

    Stages and models are measured one after the other, as a replay runs them. A model that caches pairs of query and
    title becomes faster in the course of a long log, so its time is rather an upper bound.

    Raises:
        UsageError: a model is unknown or named twice.
    """
    sinks = make_sinks(settings, models)
    lines = list(_first_lines(files))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with closing(EmbeddedTasks(Path(folder), settings.pipeline, LexicalLabeller())) as tasks:
            opened = time.perf_counter()
            released = [*tasks.process(lines, 0), *tasks.flush()]
            stages = time.perf_counter() - opened
        opening = opened - started
    examples = [example for batch in released for example in batch.examples]
    if not examples:
        return None
    pages = report.validity.pages - report.validity.empty_pages
    rates = {name: _seconds_per_page(sink, examples) for name, sink in sinks.items()}
    return Estimate(
        sample_pages=len(examples),
        sample_events=len(lines),
        stages=opening + stages / len(lines) * report.lines,
        models={name: rate * pages for name, rate in rates.items()},
    )


def _first_lines(files: Sequence[str]) -> Iterator[bytes]:
    """Yield the beginning of a log up to its 500th page with items and the micro-batch which that is in."""
    pages = 0
    batches = itertools.chain.from_iterable(file.batches(batch_lines=_BATCH_LINES) for file in open_log(files))
    for batch in batches:
        yield from batch.lines
        pages += sum(isinstance(event, ResultPage) and bool(event.items) for event in decode_lines(batch.lines))
        if pages >= SAMPLE_PAGES:
            return


def _seconds_per_page(sink: ExampleSink, examples: Sequence[Example]) -> float:
    warm_up = examples[:_CHUNK_PAGES] if len(examples) > _CHUNK_PAGES else []
    sink.consume(warm_up, MIN_WATERMARK)
    started = time.perf_counter()
    pages = 0
    for start in range(len(warm_up), len(examples), _CHUNK_PAGES):
        chunk = examples[start : start + _CHUNK_PAGES]
        sink.consume(chunk, MIN_WATERMARK)
        pages += len(chunk)
        if time.perf_counter() - started > _MAX_SECONDS:
            break
    sink.flush()
    return (time.perf_counter() - started) / pages
