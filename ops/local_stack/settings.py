"""The settings of `make up` from the environment: folder, ports, demo log; and the paths that follow."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

from prectr.ops.live.metrics_ports import metrics_port_of
from prectr.state.errors import ConfigError

CHECKOUT: Final = Path(__file__).resolve().parents[2]
STREAM_WORKERS: Final = 2
_PREFIX: Final = "UP_"
"""Not PRECTR_, whose variables must be settings of the pipeline or the trainer."""
_HIGHEST_PORT: Final = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class UpSettings:
    """Settings of `make up`, each set by the variable UP_ and its name, as in UP_PROMETHEUS_PORT=9190 make up.

    dir: folder for logs and data. kafka_port, controller_port: of the broker. prometheus_port: of Prometheus.
    metrics_port: of the trainer; the monitor uses the next one, the stream workers the two after. monitor_port: of
    the monitor's page. pages: of the demo log. speed: seconds of event time per second at which it is loaded, or max.
    model: the model to train. ready_timeout: seconds until all services must be ready.
    """

    dir: Path = CHECKOUT / "up-run"
    kafka_port: int = 9092
    controller_port: int = 9093
    prometheus_port: int = 9090
    metrics_port: int = 9401
    monitor_port: int = 9480
    pages: int = 20_000
    speed: str = "1000"
    model: str = "prectr-v2"
    ready_timeout: int = 180

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """The defaults, replaced by what the environment names.

        Raises:
            ConfigError: an unknown variable, an invalid number, or a port out of range or used twice.
        """
        kinds = {_PREFIX + field.name.upper(): field for field in fields(cls)}
        values: dict[str, Any] = {}
        for variable in sorted(name for name in environ if name.startswith(_PREFIX) and environ[name]):
            if variable not in kinds:
                raise ConfigError(f"unknown setting {variable} of make up; the settings are {', '.join(kinds)}")
            field = kinds[variable]
            values[field.name] = _read(variable, environ[variable], type(field.default))
        settings = cls(**values)
        named = [port for port, _ in settings.ports.items()]
        if len(set(named)) < 4 + 2 + STREAM_WORKERS:
            raise ConfigError(f"make up: two ports are equal: {settings._port_list()}; choose others")
        return settings

    @property
    def ports(self) -> dict[int, tuple[str, str]]:
        """All ports: the service, and the variable that sets the port."""
        exporters = {"the trainer's metrics": "train", "the monitor's metrics": "monitor"}
        exporters |= {f"the metrics of stream worker {n}": f"stream-{n}" for n in range(1, STREAM_WORKERS + 1)}
        return {
            self.kafka_port: ("Kafka", "UP_KAFKA_PORT"),
            self.controller_port: ("Kafka's controller", "UP_CONTROLLER_PORT"),
            self.prometheus_port: ("Prometheus", "UP_PROMETHEUS_PORT"),
            self.monitor_port: ("the monitor's page", "UP_MONITOR_PORT"),
            **{metrics_port_of(self.metrics_port, name): (what, "UP_METRICS_PORT") for what, name in exporters.items()},
        }

    @property
    def targets(self) -> dict[str, list[str]]:
        """Scrape targets of Prometheus, by job."""
        at = [f"127.0.0.1:{self.metrics_port + offset}" for offset in range(STREAM_WORKERS + 2)]
        return {"stream": at[2:], "train": at[:1], "monitor": at[1:2]}

    @property
    def bootstrap(self) -> str:
        """Address of the broker."""
        return f"127.0.0.1:{self.kafka_port}"

    @property
    def log(self) -> Path:
        """The log of all processes but the broker."""
        return self.dir / "up.log"

    @property
    def kafka_log(self) -> Path:
        """The log of the broker."""
        return self.dir / "kafka" / "server.log"

    def environment(self) -> dict[str, str]:
        """The same settings as variables, for the Procfile and the processes that it names."""
        return {_PREFIX + field.name.upper(): str(getattr(self, field.name)) for field in fields(self)}

    def _port_list(self) -> str:
        singles = ("kafka_port", "controller_port", "prometheus_port", "monitor_port")
        first, last = self.metrics_port, self.metrics_port + STREAM_WORKERS + 1
        listed = [f"{_PREFIX}{name.upper()}={getattr(self, name)}" for name in singles]
        return ", ".join([*listed, f"{_PREFIX}METRICS_PORT={first} (up to {last})"])


def _read(variable: str, text: str, kind: type) -> object:
    if issubclass(kind, Path):
        return Path(text).resolve()
    if kind is not int:
        return text
    try:
        number = int(text)
    except ValueError as error:
        raise ConfigError(f"{variable}={text}: must be a whole number") from error
    highest = _HIGHEST_PORT - STREAM_WORKERS - 1 if variable.endswith("_PORT") else 1 << 31
    if not 0 < number <= highest:
        raise ConfigError(f"{variable}={text}: must be at least 1 and at most {highest}")
    return number
