"""What the commands do, as Python functions; `import prectr` exports them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any, Self

import msgspec

from prectr.ops.ranking.candidates import check_candidates
from prectr.ops.ranking.result import Ranking
from prectr.ops.ranking.service import RankQuery, RunRanker, RunRef
from prectr.ops.report import Report
from prectr.ops.settings.loader import load_settings
from prectr.ops.training.batch_span import settle_batch_span
from prectr.ops.training.replay import run_replay
from prectr.state.errors import InputError, UsageError
from prectr.stream.check import CheckReport, survey_log
from prectr.stream.events.contract import Context, Features, Item
from prectr.stream.output_format import check_suffix
from prectr.stream.replay.runner import RunnerOptions
from prectr.stream.serving.point_in_time import MAX_ITEMS

AnyPath = str | PathLike[str]


def replay(
    files: AnyPath | Sequence[AnyPath],
    run_dir: AnyPath,
    *,
    model: str | Sequence[str] | None = None,
    config: AnyPath | None = None,
    examples: AnyPath | None = None,
    truth: AnyPath | None = None,
    flush: bool = True,
    restart: bool = False,
    **settings: object,
) -> Report:
    """Replay a log of pages and clicks: join, aggregate, train on every page after scoring it.

    An interrupted replay resumes from its last checkpoint when it is called again with the same arguments.

        >>> import prectr
        >>> report = prectr.replay("log.jsonl.gz", "run", model=["prectr-v2", "lr"])
        >>> print(report.models[0].auc, report.models[0].gauc)

    Args:
        files: logs: files, directories or glob patterns; several files are merged by event time.
        run_dir: folder for state, checkpoints, report.json and report.html.
        model: the rankers to train in one pass; none are trained for an empty sequence. Default: setting `model`.
        config: TOML file with settings.
        examples: write the training examples, with the score of each model, to this file: .jsonl, .jsonl.gz,
            .jsonl.zst or .parquet; see `read_examples`.
        truth: of a simulated log: also measure the quality of its true click probabilities.
        flush: the log is complete: close pending pages and train the last batch. False: a later call continues with
            further files.
        restart: discard what is in `run_dir`.
        settings: any setting by name; it takes precedence over environment and `config`.

    Raises:
        ConfigError: a setting is unknown, or its value is not allowed.
        UsageError: the name of `examples` ends otherwise, or the run was started with other settings.
        PrectrError: the log, the run folder or the disk does not allow the replay.
        KeyboardInterrupt: interrupted; everything so far is in a checkpoint.
    """
    out = None if examples is None else Path(examples)
    if out is not None:
        check_suffix(out)
    models = [model] if isinstance(model, str) else None if model is None else list(model)
    overrides = settings if not models else {**settings, "model": models[0]}
    loaded = load_settings(config, overrides, overrides_are_flags=False)
    paths = [str(file) for file in ([files] if isinstance(files, str | PathLike) else files)]
    models = [loaded.trainer.model] if models is None else models
    report, _ = run_replay(
        paths,
        Path(run_dir),
        settle_batch_span(loaded, paths, Path(run_dir), models, restart=restart),
        models=models,
        truth=None if truth is None else Path(truth),
        flush=flush,
        options=RunnerOptions(examples=out, restart=restart),
    )
    return report


def check(files: AnyPath | Sequence[AnyPath], *, config: AnyPath | None = None, **settings: object) -> CheckReport:
    """Validate a log before a replay.

        >>> report = prectr.check("log.jsonl.gz", attribution_window="5m")
        >>> for finding in report.findings:
        ...     print(finding.severity, finding.message, finding.advice)

    Args:
        files, config, settings: as for `replay`.

    Raises:
        ConfigError: a setting is unknown, or its value is not allowed.
        UsageError, InputError: a file is missing or of another type.
    """
    loaded = load_settings(config, settings, overrides_are_flags=False)
    return survey_log(
        [files] if isinstance(files, str | PathLike) else files,
        loaded.pipeline,
        batch_pages=loaded.trainer.batch_pages,
        batch_span=loaded.trainer.batch_span,
    )


class Ranker:
    """A trained ranker with the state of its run: ranks candidates for a query of a user.

    >>> ranker = prectr.Ranker.load("run")
    >>> ranking = ranker.rank(query="usb cable", user="u7", candidates=[{"item_id": "i1", "title": "USB-C cable"}])
    >>> for item in ranking.ranked:
    ...     print(item.item_id, item.click_probability)
    """

    def __init__(self, ranker: RunRanker) -> None:
        self._ranker = ranker

    @classmethod
    def load(cls, run_dir: AnyPath, *, model: str | None = None, state_dirs: Sequence[AnyPath] = ()) -> Self:
        """Open the newest checkpoint of a run.

        Args:
            run_dir: folder of a replay or of a live trainer.
            model: which model of a run that has trained several; default: its first.
            state_dirs: of a live run: the state folders of its stream workers.

        Raises:
            UsageError: the run has trained no such model, or has other settings than environment variables say.
            CheckpointError, StateError: a checkpoint or the state is missing or corrupt.
        """
        return cls(
            RunRanker(RunRef(run_dir=Path(run_dir), state_dirs=[Path(each) for each in state_dirs], model=model))
        )

    def rank(
        self,
        *,
        query: str,
        user: str,
        candidates: Sequence[Item | Mapping[str, object] | str],
        position: int = 1,
        as_of: datetime | int | None = None,
        features: Mapping[str, float | str] | None = None,
        context: Mapping[str, str] | None = None,
    ) -> Ranking:
        """Rank candidates by click probability, the highest first.

        Args:
            query: as a user would type it.
            user: id of the user; one that is not known is ranked for as a new user.
            candidates: items: `Item`, a mapping of its fields (item_id, title, relevance, price, category, brand,
                features), or the item_id alone. Each item_id once.
            position: every candidate is scored as if shown there; counts from 1.
            as_of: the time of the query: a datetime (UTC if it has no zone) or milliseconds since 1970. Default: the
                newest event in the state when it was loaded.
            features, context: custom features of the page, as in the log.

        Raises:
            InputError: there are no candidates, or one is not an item or occurs twice; a feature is not valid.
            UsageError: there is no such position.
            CheckpointError, StateError: the state was removed or is corrupt.
        """
        if not 1 <= position <= MAX_ITEMS:
            raise UsageError(f"position {position}: a page has the positions 1 to {MAX_ITEMS}")
        named = ((f"number {number}", _item(number, each)) for number, each in enumerate(candidates, 1))
        items = check_candidates(named, "candidates")
        if not items:
            raise InputError("candidates: there are none: give at least one item")
        return self._ranker.rank(
            RankQuery(
                query=query,
                user_id=user,
                items=items,
                position=position,
                as_of=_milliseconds(as_of),
                features=_checked(features, Features | None, "features"),
                context=_checked(context, Context | None, "context"),
            )
        )


def _checked(given: Mapping[str, object] | None, kind: Any, name: str) -> Any:
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{name}: {error}; given are {given!r:.200}") from error


def _item(number: int, candidate: Item | Mapping[str, object] | str) -> Item:
    if isinstance(candidate, Item):
        return candidate
    fields = {"item_id": candidate} if isinstance(candidate, str) else dict(candidate)
    try:
        return msgspec.convert(fields, Item)
    except msgspec.ValidationError as error:
        raise InputError(f"candidates: number {number}: {error}; it is {fields!r:.200}") from error


def _milliseconds(time: datetime | int | None) -> int | None:
    if not isinstance(time, datetime):
        return time
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
