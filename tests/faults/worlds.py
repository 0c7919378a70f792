"""The logs that the scenarios run on, each with what the embedded replay makes of it, made once."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.kafka.live import RunResult, replay_log
from tests.kafka.worlds import adversarial, simulated

PAGES: Final = 2_500

LOG_FACTORIES: Final[dict[str, Callable[[Path], Path]]] = {
    "disordered": lambda folder: adversarial(folder, PAGES, seed=31),
    "simulated": lambda folder: simulated(folder, PAGES, seed=32),
}


class LogCache:
    """Makes logs in `folder`, and replays them, on request."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._logs: dict[str, Path] = {}
        self._expected: dict[tuple[str, int], RunResult] = {}

    def log(self, name: str) -> Path:
        """The log of this name."""
        if name not in self._logs:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._logs[name] = LOG_FACTORIES[name](self._folder)
        return self._logs[name]

    def expected(self, name: str, partitions: int) -> RunResult:
        """What the embedded replay makes of it."""
        if (name, partitions) not in self._expected:
            folder = self._folder / f"{name}-{partitions}"
            folder.mkdir(parents=True)
            self._expected[name, partitions] = replay_log(folder, self.log(name), partitions=partitions)
        return self._expected[name, partitions]
