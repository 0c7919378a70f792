"""`prectr top` as a command: addresses, one screen, a screen that goes on."""

import json
import os
import pty
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from prectr.ops.top.scrape import exporter_url, monitor_url
from prectr.state.errors import UsageError
from testkit.command import PRECTR, environment, prectr
from tests.kit.observe.top import UNREACHABLE_URL, TextServer, join_task_metrics, table_row


@pytest.mark.parametrize(
    ("given_address", "metrics", "page"),
    [
        ("127.0.0.1:9401", "http://127.0.0.1:9401/metrics", "http://127.0.0.1:9401/quality.json"),
        ("http://host:1/", "http://host:1/metrics", "http://host:1/quality.json"),
        ("https://host/x", "https://host/x", "https://host/x"),
        ("[::1]:9401", "http://[::1]:9401/metrics", "http://[::1]:9401/quality.json"),
    ],
)
def test_an_address_may_be_short(given_address: str, metrics: str, page: str) -> None:
    assert exporter_url(given_address) == metrics
    assert monitor_url(given_address) == page


@pytest.mark.parametrize("address", ["", "file:///etc/passwd", "ftp://host:1", "host:port", "http://:1", "host:99999"])
def test_what_is_no_address_is_wrong_use(address: str) -> None:
    with pytest.raises(UsageError, match=r"is not an HTTP URL.*--endpoint"):
        exporter_url(address)


def test_once_prints_a_screen_and_writes_the_same_for_a_program(tmp_path: Path) -> None:
    with TextServer(join_task_metrics(0) + join_task_metrics(1)) as served:
        done = prectr(
            "top", "--once", "--endpoint", served.url, "--monitor", UNREACHABLE_URL, "--json", tmp_path / "top.json"
        )
    assert (done.returncode, done.stderr) == (0, "")
    written = json.loads((tmp_path / "top.json").read_text())
    assert written["pages"] == {"in": 200, "open": 36, "emitted": 160, "dead_letter": 4}
    assert [task["partition"] for task in written["tasks"]] == [0, 1]
    assert table_row(done.stdout, "pages") == "pages in 200 open 36 emitted 160 dead letter 4"
    assert "\x1b" not in done.stdout
    assert list(tmp_path.iterdir()) == [tmp_path / "top.json"]


def test_once_without_any_process_fails_and_says_what_to_do(tmp_path: Path) -> None:
    done = prectr(
        "top", "--once", "--endpoint", "127.0.0.1:1", "--monitor", UNREACHABLE_URL, "--json", tmp_path / "top.json"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "http://127.0.0.1:1/metrics: Connection refused" in done.stderr
    assert "--metrics-port 9401" in done.stderr
    assert not json.loads((tmp_path / "top.json").read_text())["exporters"][0]["up"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with TextServer(join_task_metrics(0)) as served:
        done = prectr("top", "--once", "--endpoint", served.url, "--json", tmp_path / "missing" / "top.json")
    assert done.returncode == 1
    assert "missing/top.json: No such file or directory; choose another --json file" in done.stderr


def test_it_runs_until_it_is_terminated() -> None:
    with TextServer(join_task_metrics(0)) as served:
        flags = ["--endpoint", served.url, "--monitor", UNREACHABLE_URL, "--interval", "0.2"]
        process = subprocess.Popen([*PRECTR, "top", *flags], stdout=subprocess.PIPE, text=True, env=environment())
        try:
            assert process.stdout is not None
            lines = (line for line in process.stdout if line.startswith("pages"))
            assert "in 100 " in next(lines)
            served.text = join_task_metrics(0, pages=7100)
            assert any("in 7,100 " in line for line in lines)
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()


def test_on_a_terminal_it_draws_in_place_and_ctrl_c_gives_the_screen_back() -> None:
    ours, its = pty.openpty()
    plain = environment(TERM="xterm-256color", COLUMNS="100", LINES="40")
    with TextServer(join_task_metrics(0)) as served:
        flags = ["--endpoint", served.url, "--monitor", UNREACHABLE_URL, "--interval", "0.2"]
        process = subprocess.Popen([*PRECTR, "top", *flags], stdin=its, stdout=its, stderr=its, env=plain)
        os.close(its)
        try:
            shown = ""
            while shown.count("join") < 3:
                shown += os.read(ours, 65_536).decode(errors="replace")
            process.send_signal(signal.SIGINT)
            with suppress(OSError):
                while part := os.read(ours, 65_536):
                    shown += part.decode(errors="replace")
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
            os.close(ours)
    # The other screen, and back again; the cursor is shown at the end.
    assert shown.index("\x1b[?1049h") < shown.index("join") < shown.index("\x1b[?1049l")
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert "Ctrl-C exits" in shown
    assert "Traceback" not in shown
