"""The options that several commands share: each is declared here once, with its help text and default."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from prectr.ops.settings.option import setting_option
from prectr.state.errors import UsageError

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from prectr.ops.doctor.broker.topic_checks import SnapshotTarget
    from prectr.ops.metrics.exporter import Exporter
    from prectr.stream.kafka.client.client import Connection
    from prectr.stream.kafka.client.topics import Topics

_CONNECTION_PANEL: Final = "Connection"
Snapshot = TypeVar("Snapshot")

Bootstrap = Annotated[str, typer.Option(help="Kafka brokers, host:port, comma-separated.")]
ConfigFile = Annotated[Path | None, typer.Option(help="TOML file with settings; see docs/configuration.md.")]
JsonFile = Annotated[Path | None, typer.Option(help="Also write the result to this file, as JSON.")]
CheckpointInterval = Annotated[
    float,
    typer.Option(
        min=0,
        help="Seconds between two checkpoints; 0: after every step (8,192 lines of a replay, one poll of a trainer).",
    ),
]


class OrderChoice(StrEnum):
    """How several files become one log."""

    TIME = "time"
    GIVEN = "given"


FileOrder = Annotated[
    OrderChoice,
    typer.Option("--order", help="Several files: merged by event time, or one after the other as given."),
]
SessionTimeout = Annotated[
    float, typer.Option(min=1, help="Seconds after which the group reassigns a dead process's tasks.")
]
UntilEnd = Annotated[
    bool, typer.Option("--until-end", help="Stop once everything that is in the topics now has been processed.")
]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        help="Serve Prometheus metrics on this port: 9401 serves http://127.0.0.1:9401/metrics, 0 picks a free port "
        "and logs it.",
        show_default=False,
    ),
]
MetricsAddress = Annotated[
    str | None,
    typer.Option(help="Address to serve metrics on; default 127.0.0.1, 0.0.0.0 for all.", show_default=False),
]
AllowedHost = Annotated[
    list[str] | None,
    typer.Option(
        envvar="PRECTR_ALLOWED_HOSTS",
        metavar="NAME",
        help="Host name by which browsers and Prometheus may address this process over HTTP, besides localhost, IP "
        "addresses and the name of the machine; may be repeated (separated by spaces in the variable).",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaOptions:
    """Which brokers and topics a command uses."""

    bootstrap: Bootstrap
    topic_prefix: Annotated[
        str,
        typer.Option(help="Prefix of all topic names; separates several systems.", rich_help_panel=_CONNECTION_PANEL),
    ] = ""
    client_config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with kafka-python client settings, such as security_protocol. A setting with the suffix "
            "_file or _env, such as sasl_plain_password_file, names a file or environment variable with the value.",
            rich_help_panel=_CONNECTION_PANEL,
        ),
    ] = None
    connect_timeout: Annotated[
        float,
        typer.Option(
            min=0, help="Seconds to keep retrying while the broker does not answer.", rich_help_panel=_CONNECTION_PANEL
        ),
    ] = 5.0

    def connection(self) -> "Connection":
        """The connection to the brokers; raises ConfigError for invalid client settings."""
        from prectr.ops.cli.client_config import connection  # noqa: PLC0415 (--help needs no Kafka client)

        return connection(self.bootstrap, self.client_config, self.connect_timeout)

    def topics(self) -> "Topics":
        """The names of the topics."""
        from prectr.stream.kafka.client.topics import Topics  # noqa: PLC0415 (--help needs no Kafka client)

        return Topics(self.topic_prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterOptions(KafkaOptions):
    """Whose dead letters: those of the live system, or those of a replay."""

    bootstrap: Annotated[str, typer.Option(help="Kafka brokers, host:port, comma-separated.", show_default=False)] = ""
    run_dir: Annotated[Path | None, typer.Option(help="Folder of a replay, instead of --bootstrap.")] = None

    def replay(self) -> Path | None:
        """The run folder of the replay; None for the live system. Raises UsageError unless one of them is named."""
        if bool(self.bootstrap) == (self.run_dir is not None):
            raise UsageError("name either --bootstrap, for the live system, or --run-dir, for a replay")
        return self.run_dir


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemOptions(KafkaOptions):
    """Which live system: its brokers, topics and consumer groups."""

    group_prefix: Annotated[
        str,
        typer.Option(
            help="Prefix of the consumer group names; separates several systems.", rich_help_panel=_CONNECTION_PANEL
        ),
    ] = "prectr-"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotOptions:
    """Where the stages keep snapshots of their state, and how often they take one."""

    snapshots: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Location of the state snapshots: a folder or any fsspec URL (s3://...). Without it, lost state is "
            "rebuilt from the log.",
            show_default=False,
        ),
    ] = None
    snapshot_interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two snapshots of a task.")] = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotCheckOptions:
    """Which snapshots a check reads, and how old they may be."""

    snapshots: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Snapshot location to check.",
            show_default=False,
        ),
    ] = None
    snapshot_interval: Annotated[
        float, typer.Option(min=0.1, help="Configured interval; used to judge the age of snapshots.")
    ] = 60.0

    def target(self) -> "SnapshotTarget | None":
        """What the checks know of the snapshots; None without --snapshots."""
        from prectr.ops.doctor.broker.topic_checks import SnapshotTarget  # noqa: PLC0415 (--help needs no Kafka client)

        return None if self.snapshots is None else SnapshotTarget(self.snapshots, self.snapshot_interval)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions(SnapshotOptions):
    """How a stream worker runs its tasks."""

    session_timeout: SessionTimeout = 10.0
    idle_timeout: Annotated[
        float,
        typer.Option(
            min=5,
            help="Seconds without input after which other partitions stop waiting for this partition's pending pages.",
        ),
    ] = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """What is trained and how; options that are not given keep their setting."""

    model: Annotated[str | None, setting_option("model", "Several, comma-separated, are trained in one pass.")] = None
    batch_pages: Annotated[str | None, setting_option("batch_pages")] = None
    batch_span: Annotated[str | None, setting_option("batch_span")] = None
    seed: Annotated[str | None, setting_option("seed")] = None

    @property
    def models(self) -> list[str]:
        """The models by name; empty if none was given."""
        return [name.strip() for name in (self.model or "").split(",") if name.strip()]

    def settings(self) -> dict[str, object]:
        """The settings that these options override; None where an option was not given."""
        return {
            "model": next(iter(self.models), None),
            "batch_pages": self.batch_pages,
            "batch_span": self.batch_span,
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class EndOptions:
    """Whether a live system ends with the log."""

    until_end: UntilEnd = False
    flush: Annotated[
        bool,
        typer.Option(
            "--flush", help="With --until-end: the log is complete; close all pending pages, train the last batch."
        ),
    ] = False

    def check(self) -> None:
        """Raise UsageError for --flush without --until-end."""
        if self.flush and not self.until_end:
            raise UsageError("--flush requires --until-end: only a log that ends has a last page and a last batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEndOptions(EndOptions):
    """Whether a stream worker ends with the log."""

    flush: Annotated[
        bool, typer.Option("--flush", help="With --until-end: the log is complete; close all pending pages.")
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainEndOptions(EndOptions):
    """Whether a trainer ends with the log."""

    flush: Annotated[
        bool, typer.Option("--flush", help="With --until-end: the log is complete; train the last batch.")
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsOptions:
    """Where a process serves its metrics, and under which host names."""

    metrics_port: MetricsPort = None
    metrics_address: MetricsAddress = None
    allowed_host: AllowedHost = None

    def exporter(
        self,
        render: "Callable[[Snapshot], Iterator[Metric]]",
        unready_reason: "Callable[[Snapshot], str]" = lambda _: "",
    ) -> "AbstractContextManager[Exporter[Snapshot] | None]":
        """The exporter, started on entry; None without --metrics-port.

        Args:
            render: makes the metrics of a snapshot.
            unready_reason: why a process with this snapshot is not ready; empty if it is.

        Raises:
            UsageError: an address without a port.
        """
        if self.metrics_port is not None:
            return self._running_exporter(render, unready_reason, self.metrics_port)
        if self.metrics_address is not None:
            raise UsageError(f"--metrics-address {self.metrics_address} requires --metrics-port")
        return nullcontext()

    @contextmanager
    def _running_exporter(
        self,
        render: "Callable[[Snapshot], Iterator[Metric]]",
        unready_reason: "Callable[[Snapshot], str]",
        port: int,
    ) -> "Iterator[Exporter[Snapshot]]":
        from prectr.ops.metrics.exporter import LOOPBACK, Exporter  # noqa: PLC0415 (most runs serve no metrics)

        address = LOOPBACK if self.metrics_address is None else self.metrics_address
        hosts = self.allowed_host or ()
        with Exporter(render, port, address, unready_reason=unready_reason, allowed_hosts=hosts) as exporter:
            yield exporter
