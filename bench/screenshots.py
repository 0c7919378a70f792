"""Takes the screenshots in `docs/images`: the report, the monitor page, and `prectr top` on a live system.

A log of the Chorus catalogue is simulated and replayed with three models; then a live system (its own Kafka broker, two
stream processes, a trainer, a monitor) processes it, and the screenshots are taken. Pages are rendered in headless
Chromium, and rich exports the terminal's screen as SVG. There are none of Grafana, which is in neither Debian nor PyPI:
its dashboards are checked as files, and the report and the monitor page are shown instead.

    python -m bench.screenshots
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import StringIO
from pathlib import Path
from typing import Annotated, Final

import typer
from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI

from bench.stream.broker import running_broker
from prectr.ops.top.poller import Poller
from prectr.ops.top.scrape import exporter_url, monitor_url, scrape_monitor
from prectr.ops.top.screen import render
from prectr.state.errors import PrectrError, UsageError
from testkit.chromium import INSTALL_HINT, NARROW, WIDE, Chrome, chrome, chrome_available

IMAGES: Final = Path("docs/images")
MAX_BYTES: Final = 200_000
"""Maximum size of an image, since all of them are in the repository."""
_PRECTR: Final = [sys.executable, "-c", "from prectr.ops.cli.main import main; main()"]
_STREAM_WORKERS: Final = 2
_COLUMNS: Final = 132
_TIMEOUT: Final = 900.0
_LEARNED_SHARE: Final = 0.7
"""Share of the pages that are trained on when the screenshots are taken: pages at the end of the log stay open."""
_COLOURS: Final = 128
_REPORT_HEIGHT: Final = 1350
_NARROW_HEIGHT: Final = 1000


def main(
    pages: Annotated[int, typer.Option(min=200, help="Result pages of the log.")] = 1500,
    out: Annotated[Path, typer.Option(help="Output folder.")] = IMAGES,
) -> None:
    """Take the screenshots of the documentation.

    Example: python -m bench.screenshots
    """
    if not chrome_available():
        raise UsageError(f"no browser found: {INSTALL_HINT}")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="prectr-pictures-") as folder, chrome() as browser:
        work = Path(folder)
        log = work / "log.jsonl.gz"
        _run_prectr("simulate", "--pages", pages, "--days", 0.5, "--catalogue", "chorus", "--out", log)
        models = "wide-deep,dnn,lr"
        _run_prectr("replay", log, "--run-dir", work / "replay", "--model", models, "--batch-span", "1d")
        page = (work / "replay" / "report.html").as_uri()
        _screenshot(browser, page, WIDE, out / "report.png", _REPORT_HEIGHT)
        _screenshot(browser, page, NARROW, out / "report-narrow.png", _NARROW_HEIGHT)
        _live_screenshots(browser, log, pages, work, out)
    for path in sorted(out.iterdir()):
        typer.echo(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def _live_screenshots(browser: Chrome, log: Path, pages: int, work: Path, out: Path) -> None:
    """Run the live system on the log, and take the screenshots when it has processed most of it."""
    first = _free_port_range(_STREAM_WORKERS + 3)
    monitor = first + _STREAM_WORKERS + 2
    with running_broker(work / "kafka") as broker, ExitStack() as stack:
        broker_flags = ["--bootstrap", broker.address]
        _run_prectr("topics", "create", *broker_flags, "--partitions", 4)
        flags = [
            "--stream-workers",
            _STREAM_WORKERS,
            "--metrics-port",
            first,
            "--monitor-port",
            monitor,
            "--model",
            "wide-deep",
        ]
        log_file = work / "run.log"
        process = stack.enter_context(
            _running_process(
                log_file, "run", *broker_flags, "--run-dir", work / "live", "--checkpoint-interval", 1, *flags
            )
        )
        exporters = [exporter_url(f"127.0.0.1:{first + number}") for number in range(_STREAM_WORKERS + 2)]
        quality = monitor_url(f"127.0.0.1:{monitor}")
        poller = Poller(exporters, quality, explicit=True)
        _wait_for(lambda: all(each.up for each in poller.poll().status.exporters), process, log_file)
        _run_prectr("load", log, *broker_flags)
        _wait_for(lambda: _pages_with_quality(quality) >= pages * _LEARNED_SHARE, process, log_file)
        console = Console(record=True, width=_COLUMNS, height=60, file=StringIO(), force_terminal=True, highlight=False)
        console.print(render(poller.poll(), console, full=True))
        svg = console.export_svg(title="prectr top", theme=MONOKAI)
        _write_image(out / "top.svg", _without_web_fonts(svg).encode())
        _screenshot(browser, quality.removesuffix("quality.json"), WIDE, out / "monitor.png")
        _screenshot(browser, quality.removesuffix("quality.json"), NARROW, out / "monitor-narrow.png", _NARROW_HEIGHT)


def _pages_with_quality(quality: str) -> int:
    """Number of pages in the monitor's quality metrics."""
    now = scrape_monitor(quality, 5).quality
    return 0 if now is None else sum(model.windows["run"].all.pages for model in now.models)


def _run_prectr(*words: object) -> None:
    """Run a command until it exits.

    Raises:
        PrectrError: it failed.
    """
    done = subprocess.run([*_PRECTR, *map(str, words)], check=False, capture_output=True, text=True)
    if done.returncode:
        raise PrectrError(f"prectr {words[0]} failed:\n{done.stderr[-3000:]}")


@contextmanager
def _running_process(log_file: Path, *words: object) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command in the background, with its output in `log_file`; interrupt it at the end."""
    with log_file.open("wb") as out:
        process = subprocess.Popen(
            [*_PRECTR, *map(str, words)], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(_TIMEOUT)


def _wait_for(condition: Callable[[], bool], process: "subprocess.Popen[bytes]", log_file: Path) -> None:
    deadline = time.monotonic() + _TIMEOUT
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise PrectrError(f"the live system made no progress:\n{log_file.read_text(errors='replace')[-3000:]}")
        time.sleep(1)


def _free_port_range(count: int) -> int:
    """First of `count` consecutive free ports."""
    for port in range(21_000, 30_000, count):
        try:
            with ExitStack() as stack:
                for number in range(count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port + number))
            return port
        except OSError:
            continue
    raise PrectrError(f"no {count} consecutive free ports")


def _screenshot(browser: Chrome, url: str, width: int, out: Path, height: int | None = None) -> None:
    """Save a page as a small PNG; height: CSS pixels from the top, all of it by default."""
    browser.open(url, width)
    browser.screenshot(out, height)
    # A page has few colours: a palette takes a third of the size.
    Image.open(out).convert("RGB").quantize(_COLOURS).save(out, optimize=True)
    _write_image(out, out.read_bytes())


def _without_web_fonts(svg: str) -> str:
    """Remove the fonts that rich's SVG would fetch from the web; any monospaced one will do."""
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def _write_image(out: Path, content: bytes) -> None:
    """Write an image.

    Raises:
        PrectrError: it is larger than `MAX_BYTES`.
    """
    if len(content) > MAX_BYTES:
        raise PrectrError(f"{out}: {len(content):,} bytes exceed {MAX_BYTES:,}: take less of the page")
    out.write_bytes(content)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    typer.run(main)
