"""Watches metrics, logs and `prectr doctor` for what the system says of a fault."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol
from urllib.error import URLError
from urllib.request import urlopen

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from testkit.command import RunningCommand, environment, prectr
from tests.faults.reports.expected_reports import ExpectedReport, FindingReport, MetricReport
from tests.kafka.live import Live

SAID_WITHIN: Final = 60.0
"""Seconds within which the system says what is wrong."""
_INTERVAL: Final = 0.3
_SCRAPE_TIMEOUT: Final = 2.0
Place = Literal["metric", "log", "finding"]


class ObservedSystem(Protocol):
    """What is watched. ports: of the metrics, by process. doctor_flags: with which the doctor is asked."""

    @property
    def live(self) -> Live: ...

    @property
    def ports(self) -> Mapping[str, int]: ...

    @property
    def doctor_flags(self) -> Sequence[str | Path]: ...


class ReportWatch:
    """Collects what is said from now on; `poll` goes on with it, and never waits for long."""

    def __init__(self, system: ObservedSystem, expected: ExpectedReport) -> None:
        self._system = system
        self._since = time.monotonic()
        self._log_starts = {path: path.stat().st_size for path in self._logs()}
        self._wanted: dict[Place, Callable[[], bool]] = {}
        if expected.metric is not None:
            self._wanted["metric"] = lambda metric=expected.metric: self._metric_shows(metric)
        if expected.log is not None:
            self._wanted["log"] = lambda words=re.compile(expected.log): self._is_logged(words)
        self._finding = expected.finding
        self._doctor: RunningCommand | None = None
        self._doctor_settings: dict[str, str] = {}
        self._doctor_runs = 0
        self._polled_at = 0.0
        self._scraped = {name for name in system.ports if scrape(system.ports[name]) is not None}
        self.said_after: dict[Place, float] = {}

    def poll(self) -> None:
        """Look again, unless it was done just before."""
        now = time.monotonic()
        if now - self._polled_at >= _INTERVAL:
            self._polled_at = now
            self.look()

    def look(self) -> None:
        """Look now."""
        for place, is_said in self._wanted.items():
            if place not in self.said_after and is_said():
                self.said_after[place] = time.monotonic() - self._since

    def ask_doctor(self, **settings: str) -> None:
        """Run the doctor again and again, with these settings in its environment, until it has the finding."""
        if self._finding is not None:
            self._doctor_settings = settings
            self._wanted["finding"] = lambda finding=self._finding: self._doctor_finds(finding)

    def expect_nothing(self, *places: Place) -> None:
        """What was to be said there has no reason, as the fault turned out."""
        for place in places:
            self._wanted.pop(place, None)
            if place == "finding":
                self._finding = None

    @property
    def missing(self) -> list[Place]:
        """Where nothing has been said yet."""
        expected: list[Place] = [*self._wanted, *(["finding"] if self._finding is not None else [])]  # type: ignore[list-item]
        return [place for place in dict.fromkeys(expected) if place not in self.said_after]

    @property
    def seconds(self) -> float | None:
        """After how many seconds all was said; None if something was not, or nothing was to be said."""
        return None if self.missing or not self.said_after else max(self.said_after.values())

    def close(self) -> None:
        """End a doctor that still runs."""
        if self._doctor is not None:
            self._doctor.kill()
            self._doctor.wait()
            self._doctor = None

    def _logs(self) -> list[Path]:
        return sorted((self._system.live.folder / "stderr").glob("*.log"))

    def _is_logged(self, words: re.Pattern[str]) -> bool:
        for path in self._logs():
            with path.open("rb") as log:
                log.seek(self._log_starts.get(path, 0))
                if words.search(log.read().decode(errors="replace")):
                    return True
        return False

    def _metric_shows(self, report: MetricReport) -> bool:
        samples = {name: scrape(port) for name, port in self._system.ports.items()}
        if report.shows == "down":
            watched = {report.process} if report.process else self._scraped
            shown = any(samples[name] is None for name in watched)
            self._scraped |= {name for name, found in samples.items() if found is not None}
            return shown
        return any(value > 0 for found in samples.values() for name, value in found or () if name == report.name)

    def _doctor_finds(self, report: FindingReport) -> bool:
        out = self._system.live.folder / f"doctor-{self._doctor_runs}.json"
        if self._doctor is None:
            self._doctor_runs += 1
            out = self._system.live.folder / f"doctor-{self._doctor_runs}.json"
            self._doctor = RunningCommand(
                ["doctor", *self._system.doctor_flags, "--json", out],
                stdout=None,
                stderr=out.with_suffix(".log"),
                environ=environment(**self._doctor_settings),
            )
            return False
        if self._doctor.poll() is None:
            return False
        self._doctor = None
        return has_finding(out, report)


def scrape(port: int) -> list[tuple[str, float]] | None:
    """The samples that a port of this machine serves, by name; None if it does not answer."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=_SCRAPE_TIMEOUT) as answer:
            text = answer.read().decode()
    except (URLError, OSError):
        return None
    return [(sample.name, sample.value) for family in text_string_to_metric_families(text) for sample in family.samples]


def has_finding(out: Path, report: FindingReport) -> bool:
    """Whether the doctor has written a finding to the file; it writes none where it fails itself."""
    if not out.exists():
        return False
    findings: list[dict[str, Any]] = msgspec.json.decode(out.read_bytes())
    return any(
        report.name in finding["name"]
        and finding["severity"] == report.severity
        and re.search(report.observed, finding["observed"])
        for finding in findings
    )


def findings_of_healthy_system(system: ObservedSystem, reports: Sequence[FindingReport]) -> list[FindingReport]:
    """Which of the findings the doctor has although nothing is wrong."""
    out = system.live.folder / "doctor-healthy.json"
    prectr("doctor", *system.doctor_flags, "--json", out)
    return [report for report in reports if has_finding(out, report)]
