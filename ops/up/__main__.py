"""`python -m ops.up up` and `python -m ops.up down`, which are `make up` and `make down`."""

import sys

from ops.console import set_up_logging
from ops.up.settings import UpSettings
from ops.up.start import start
from ops.up.stop import stop
from state.errors import PrectrError, UsageError


def main(command: str) -> None:
    """Start the whole system, or end it."""
    settings = UpSettings.from_environment()
    if command == "down":
        was = stop(settings.dir)
        print(f"{settings.dir}: ended" if was else f"{settings.dir}: nothing is up")
        return
    fresh = start(settings)
    print("up" if fresh else "it is up already; make down ends it")
    for name, place in _places(settings).items():
        print(f"  {name:<12}{place}")


def _places(settings: UpSettings) -> dict[str, str]:
    metrics = ", ".join(f"http://{target}/metrics" for targets in settings.targets.values() for target in targets)
    return {
        "monitor": f"http://127.0.0.1:{settings.monitor_port}/",
        "Prometheus": f"http://127.0.0.1:{settings.prometheus_port}/ (alerts: /alerts)",
        "metrics": metrics,
        "Kafka": settings.bootstrap,
        "report": str(settings.dir / "run" / "report.html"),
        "logs": f"{settings.log}, {settings.kafka_log}, {settings.dir / 'run' / 'logs'}",
        "the end": "make down (data stays; make up goes on with it)",
    }


if __name__ == "__main__":
    set_up_logging()
    try:
        if sys.argv[1:] not in (["up"], ["down"]):
            raise UsageError("python -m ops.up up, or down")
        main(sys.argv[1])
    except PrectrError as error:
        sys.exit(str(error))
