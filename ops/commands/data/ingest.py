"""`prectr ingest`: topics of other programs to `search-events`."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from prectr.ops.cli.console import progress_bar
from prectr.ops.cli.option_groups import with_option_groups
from prectr.ops.cli.options import ConfigFile, JsonFile, MetricsOptions, SessionTimeout, SystemOptions, UntilEnd
from prectr.ops.cli.signals import stop_signals
from prectr.ops.cli.terminal_escape import printable
from prectr.ops.json_file import write_json
from prectr.ops.settings.loader import load_settings
from prectr.state.errors import PrectrError

if TYPE_CHECKING:
    from prectr.stream.kafka.ingest.ingest_task import IngestStatus
    from prectr.stream.kafka.ingest.schema_registry import SchemaRegistry

_PASSWORD: Final = "PRECTR_REGISTRY_PASSWORD"


@with_option_groups
def ingest(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="TOPIC=MAPPING...",
            help="Topics to read, each with its mapping file (.toml) as for `prectr convert`; several may share one.",
        ),
    ],
    system: SystemOptions,
    *,
    value_format: Annotated[
        list[str],
        typer.Option(
            "--format",
            metavar="[TOPIC=]FORMAT",
            help="json (also behind a schema id), avro, or avro-confluent (behind a schema id); of one topic, or all.",
        ),
    ] = ["json"],  # noqa: B006 (Typer copies it)
    schema: Annotated[
        list[str],
        typer.Option(
            metavar="[TOPIC=]FILE",
            help="Avro schema (.avsc) of values, of one topic or all. Beside --registry: the schema to read them as.",
            show_default=False,
        ),
    ] = [],  # noqa: B006 (Typer copies it)
    registry: Annotated[
        str | None, typer.Option(metavar="URL", help="Schema registry, for avro-confluent.", show_default=False)
    ] = None,
    registry_user: Annotated[
        str | None,
        typer.Option(
            envvar="PRECTR_REGISTRY_USER",
            help=f"User of the registry; the password is that of the environment variable {_PASSWORD}.",
            show_default=False,
        ),
    ] = None,
    max_ahead: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds of event time by which a partition may be ahead of others with unread records; default: the "
            "setting allowed_lateness.",
            show_default=False,
        ),
    ] = None,
    until_end: UntilEnd = False,
    session_timeout: SessionTimeout = 10.0,
    metrics: MetricsOptions,
    config: ConfigFile = None,
    json: JsonFile = None,
) -> None:
    """Map records of other programs' topics to events, keyed by user, in search-events: each exactly once.

    Start as many processes as there are partitions; they share the partitions and replace one that dies. A record that
    cannot be mapped becomes a dead letter. docs/ingest.md has examples.

    Example: prectr ingest pages=pages.toml clicks=clicks.toml --bootstrap localhost:9092

    Example: prectr ingest searches=searches.toml --format avro-confluent --registry http://localhost:8081
    --bootstrap localhost:9092
    """
    from prectr.ops.cli.foreign_topics import foreign_topics  # noqa: PLC0415
    from prectr.ops.metrics.broker import unready_without_broker, with_broker_metric  # noqa: PLC0415
    from prectr.ops.metrics.ingest import ingest_metrics  # noqa: PLC0415
    from prectr.stream.kafka.ingest.run import IngestSettings, run_ingest  # noqa: PLC0415

    lateness = load_settings(config).pipeline.allowed_lateness
    settings = IngestSettings(
        connection=system.connection(),
        topics=system.topics(),
        group_prefix=system.group_prefix,
        inputs=foreign_topics(inputs, value_format, schema),
        max_ahead=lateness if max_ahead is None else max_ahead,
        registry=_registry(registry, registry_user),
        session_timeout=session_timeout,
    )
    latest: Sequence[IngestStatus] = ()
    exporter_context = metrics.exporter(with_broker_metric(ingest_metrics), unready_without_broker(lambda _: ""))
    with exporter_context as exporter, progress_bar("ingest", 0) as bar, stop_signals() as stop:

        def progress(tasks: Sequence["IngestStatus"]) -> None:
            nonlocal latest
            latest = tasks
            if exporter is not None:
                exporter.update(tasks)
            events = sum(task.pages + task.clicks for task in tasks)
            dead_letters = sum(sum(task.dead_letters.values()) for task in tasks)
            unread = sum(task.lag or 0 for task in tasks)
            bar.update(events, f"{events:,} events, {dead_letters:,} dead letters, {unread:,} records to read")

        run_ingest(settings, until_end=until_end, stop=stop, progress=progress)
    _report(latest, json)


def _registry(url: str | None, user: str | None) -> "SchemaRegistry | None":
    from prectr.stream.kafka.ingest.schema_registry import SchemaRegistry  # noqa: PLC0415

    return None if url is None else SchemaRegistry(url, user, os.environ.get(_PASSWORD))


def _report(tasks: Sequence["IngestStatus"], json: Path | None) -> None:
    """Print what this process has done; raises PrectrError if no event has ever come of the topics."""
    write_json(json, list(tasks))
    for topic in sorted({task.topic for task in tasks}):
        own = [task for task in tasks if task.topic == topic]
        records, pages, clicks = (sum(getattr(task, name) for task in own) for name in ("records", "pages", "clicks"))
        typer.echo(f"{topic}: {records:,} records: {pages:,} pages, {clicks:,} clicks")
        dead_letters: Counter[str] = sum((Counter(task.dead_letters) for task in own), Counter())
        left_out: Counter[str] = sum((Counter(task.left_out) for task in own), Counter())
        for title, counts in (("dead letters", dead_letters), ("left out", left_out)):
            if counts:
                reasons = ", ".join(f"{count:,} {printable(reason)}" for reason, count in counts.most_common())
                typer.echo(f"  {title}: {reasons}")
    if any(task.records for task in tasks) and not any(task.emitted for task in tasks):
        raise PrectrError("no event came of these records: the mapping does not fit them; the reasons are above")
