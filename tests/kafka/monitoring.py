"""A monitor process and what it serves."""

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testkit.command import PRECTR, environment
from tests.kafka.live import Live
from tests.kit.observe.scrape import Samples, scrape_samples

TIMEOUT = 150


@dataclass
class MonitorProcess:
    """One monitor of a live system; started again, it has the same folder."""

    live: Live
    name: str = "monitor"
    process: subprocess.Popen[str] | None = None
    _starts: int = field(default=0)

    def start(self, *flags: str, **variables: str) -> "MonitorProcess":
        self._starts += 1
        command = [*PRECTR, "monitor", "--bootstrap", self.live.bootstrap, "--topic-prefix", self.live.prefix]
        command += ["--group-prefix", self.live.prefix, "--data-dir", str(self.live.folder / self.name)]
        command += ["--port", "0", "--metrics-port", "0", "--session-timeout", "3", *flags]
        with self._log.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, text=True, env=environment(**variables)
            )
        self.live.processes.append(self.process)
        return self

    @property
    def _log(self) -> Path:
        return self.live.folder / f"{self.name}-{self._starts}.log"

    def log_text(self) -> str:
        return self._log.read_text(errors="replace")

    def port(self, endpoint: str) -> int | None:
        """Return the port of `page` or `metrics` once they are served."""
        assert self.process is not None
        assert self.process.poll() is None, self.log_text()
        found = re.search(rf"{endpoint}: http://127\.0\.0\.1:(\d+)/", self.log_text())
        return int(found[1]) if found else None

    def get(self, path: str) -> str:
        wait_for(lambda: self.port("page") is not None)
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port('page')}{path}", timeout=30) as answer:
            text: str = answer.read().decode()
        return text

    def quality(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/quality.json"))
        return found

    def samples(self) -> Samples:
        wait_for(lambda: self.port("metrics") is not None)
        port = self.port("metrics")
        assert port is not None
        return scrape_samples(port)

    def pages(self, model: str = "lr") -> int:
        """Return the pages of all runs that the monitor knows."""
        models = {each["model"]: each for each in self.quality()["models"]}
        return int(models[model]["windows"]["run"]["all"]["pages"]) if model in models else 0

    def wait_for_pages(self, pages: int) -> None:
        wait_for(lambda: self.pages() == pages, lambda: f"{self.pages()} pages, not {pages}\n{self.log_text()}")

    def wait_for_end(self, code: int = 0) -> str:
        """Wait for the process; returns its log."""
        assert self.process is not None
        self.process.wait(60)
        log = self.log_text()
        assert self.process.returncode == code, f"exit {self.process.returncode}\n{log[-4000:]}"
        assert "Traceback" not in log, log[-4000:]
        return log


def wait_for(condition: Callable[[], bool], describe: Callable[[], str] = lambda: "") -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, describe()
        time.sleep(0.2)
