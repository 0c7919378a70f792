"""Entry point of `make up` and `make down`: `python -m prectr.ops.local_stack up|down`."""

import sys

from prectr.ops.cli.console import set_up_logging
from prectr.ops.local_stack.ready import alerts_url
from prectr.ops.local_stack.settings import UpSettings
from prectr.ops.local_stack.start import start
from prectr.ops.local_stack.stop import stop
from prectr.state.errors import PrectrError, UsageError


def main(command: str) -> None:
    """Start or stop the whole system."""
    settings = UpSettings.from_environment()
    if command == "down":
        was_running = stop(settings.dir)
        print(f"{settings.dir}: stopped" if was_running else f"{settings.dir}: nothing is running")
        return
    started = start(settings)
    print("up" if started else "already up; make down stops it")
    for name, address in _addresses(settings).items():
        print(f"  {name:<12}{address}")


def _addresses(settings: UpSettings) -> dict[str, str]:
    metrics = ", ".join(f"http://{target}/metrics" for targets in settings.targets.values() for target in targets)
    return {
        "monitor": f"http://127.0.0.1:{settings.monitor_port}/",
        "Prometheus": f"http://127.0.0.1:{settings.prometheus_port}/ (alerts: {alerts_url(settings.prometheus_port)})",
        "metrics": metrics,
        "Kafka": settings.bootstrap,
        "report": str(settings.dir / "run" / "report.html"),
        "logs": f"{settings.log}, {settings.kafka_log}, {settings.dir / 'run' / 'logs'}",
        "stop": "make down (keeps the data; make up resumes with it)",
    }


if __name__ == "__main__":
    set_up_logging()
    try:
        if sys.argv[1:] not in (["up"], ["down"]):
            raise UsageError("usage: python -m prectr.ops.local_stack up|down")
        main(sys.argv[1])
    except PrectrError as error:
        sys.exit(str(error))
