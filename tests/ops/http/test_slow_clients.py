"""Clients that are slow, idle, gone or too many: a scrape is answered, and threads and descriptors are bounded."""

import logging
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http import HTTPStatus

import pytest

from prectr.ops.http.allowed_hosts import AllowedHosts
from prectr.ops.http.listener import listen
from prectr.ops.http.response import Response, text_response
from prectr.ops.http.server import HttpServer, Limits
from tests.kit.observe.raw_http import TIMEOUT, ask, connect, exchange, reset, wait_until

LONG = 32 * 1024 * 1024
"""Bytes of a response that no buffer of the system holds."""
NEVER = 3600.0
"""Seconds: longer than any test."""


@contextmanager
def serving(limits: Limits) -> Iterator[int]:
    routes = {
        "/": lambda _: text_response(HTTPStatus.OK, "fine"),
        "/long": lambda _: Response(body=bytes(LONG)),
    }
    listener = listen("127.0.0.1", 0, served="a test", port_option="--port")
    with HttpServer(listener, routes, AllowedHosts("127.0.0.1"), limits) as server:
        yield server.port


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\n"])
def test_many_waiting_clients_hold_few_descriptors_no_thread_and_no_scrape(sent: bytes) -> None:
    with serving(Limits(connections=4, deadline=NEVER)) as port, ExitStack() as stack:
        assert ask(port).status == 200
        threads, before = threading.active_count(), descriptors()
        for _ in range(60):
            stack.enter_context(connect(port)).sendall(sent)
        assert [ask(port).status for _ in range(3)] == [200, 200, 200]
        assert threading.active_count() == threads
        # The clients' ends are descriptors of this process too. Two may be about to be closed.
        assert descriptors() <= before + 60 + 4 + 2


def test_a_client_that_trickles_is_dropped_at_the_deadline_of_the_whole_request() -> None:
    with serving(Limits(deadline=0.3)) as port, connect(port) as client:
        client.sendall(b"GET / HTTP/1.1\r\nA: ")
        client.settimeout(0.02)
        gave_up = time.monotonic() + TIMEOUT
        dropped = False
        while not dropped and time.monotonic() < gave_up:
            # A timeout of each read would never pass, as there is always another byte.
            try:
                client.sendall(b"a")
                dropped = client.recv(1) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                dropped = True
        assert dropped


def test_a_client_that_does_not_read_is_dropped_at_the_deadline() -> None:
    with serving(Limits(deadline=0.3)) as port, connect(port, receive_buffer=4096) as client:
        client.sendall(b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = len(client.recv(100))
        # Served at the deadline at the earliest, as the trickling client is dropped then.
        with connect(port) as other:
            other.sendall(b"G")
            assert other.recv(1) == b""
        with suppress(ConnectionError):
            while part := client.recv(1 << 20):
                received += len(part)
        assert 0 < received < LONG


@contextmanager
def stalled_readers(port: int, number: int) -> Iterator[ExitStack]:
    """Clients that have read the beginning of a long response, and read no more."""
    with ExitStack() as stack:
        for _ in range(number):
            client = stack.enter_context(connect(port, receive_buffer=4096))
            client.sendall(b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
        yield stack


def test_while_all_connections_are_being_answered_a_new_one_is_refused_and_later_served() -> None:
    with serving(Limits(connections=2, deadline=NEVER, grace=NEVER)) as port:
        with stalled_readers(port, 2):
            refused = ask(port)
            assert (refused.status, refused.headers["connection"]) == (503, "close")
        # The two have gone.
        wait_until(lambda: ask(port).status == 200)


def test_clients_that_stop_reading_make_room_after_the_grace_period() -> None:
    with serving(Limits(connections=2, deadline=NEVER, grace=0)) as port, stalled_readers(port, 2):
        assert ask(port).status == 200


def test_a_client_that_does_not_close_after_its_response_makes_room() -> None:
    with serving(Limits(connections=2, deadline=NEVER, grace=NEVER, linger=NEVER)) as port, ExitStack() as stack:
        for _ in range(10):
            client = stack.enter_context(connect(port))
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            # To its end, which the server tells while it waits for the client to close.
            received = b""
            while part := client.recv(4096):
                received += part
            assert received.endswith(b"\r\n\r\nfine")


def test_a_body_that_nobody_wants_does_not_lose_the_response() -> None:
    body = bytes(LONG)
    with serving(Limits(deadline=NEVER, linger=NEVER)) as port:
        # Sent as a whole before the response is read.
        answer = exchange(port, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % LONG + body)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_a_client_that_does_not_close_is_left_after_the_linger_period() -> None:
    with serving(Limits(deadline=NEVER, linger=0.1)) as port:
        before = descriptors()
        client = connect(port)
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while client.recv(4096):
            pass
        # Its own end is all that is left.
        wait_until(lambda: descriptors() == before + 1)
        client.close()


def test_an_endless_upload_is_cut_off_and_keeps_nobody_waiting() -> None:
    with serving(Limits(deadline=NEVER, linger=0.2)) as port, connect(port) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        sender_failed = threading.Event()

        def send_for_ever() -> None:
            with suppress(OSError):
                while True:
                    client.sendall(bytes(65536))
            sender_failed.set()

        sender = threading.Thread(target=send_for_ever, daemon=True)
        sender.start()
        assert ask(port).status == 200
        assert sender_failed.wait(TIMEOUT)


def test_clients_that_vanish_are_a_line_for_debugging_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "prectr.ops.http")
    with serving(Limits(deadline=NEVER)) as port:
        for sent in (b"", b"GET / HT"):
            client = connect(port)
            client.sendall(sent)
            reset(client)
        client = connect(port, receive_buffer=4096)
        client.sendall(b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.recv(12)
        reset(client)
        connect(port).close()
        assert exchange(port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").status == 200
        wait_until(lambda: len(caplog.records) >= 4)
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
    assert not any(record.exc_info for record in caplog.records)
    messages = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert messages.count("connection lost: Connection reset by peer") == 3
    assert messages.count("closed by the client before a request") == 1


def test_a_client_that_resets_after_its_response_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "prectr.ops.http")
    with serving(Limits(deadline=NEVER, linger=NEVER)) as port:
        client = connect(port)
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while client.recv(4096):
            pass
        reset(client)
        assert ask(port).status == 200
    assert caplog.records == []


PROGRAM = """
import logging, os, resource, sys
from prectr.ops.metrics.exporter import Exporter
from prometheus_client.metrics_core import GaugeMetricFamily

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, most))
with Exporter(lambda _: iter([GaugeMetricFamily("prectr_up", "Up.", 1)]), 0) as exporter:
    exporter.update("snapshot")
    print(exporter.port, flush=True)
    taken = []
    for line in sys.stdin:
        if line == "take\\n":
            try:
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                pass
        elif line == "give back\\n":
            while taken:
                os.close(taken.pop())
        print(len(taken), flush=True)
"""


@pytest.fixture
def program() -> Iterator[subprocess.Popen[str]]:
    """A process with an exporter that may open 64 files."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    with process:
        yield process
        process.kill()


def tell(process: subprocess.Popen[str], what: str) -> int:
    """Tell the program what to do; returns how many files it has taken."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{what}\n")
    process.stdin.flush()
    return int(process.stdout.readline())


def test_clients_leave_a_process_with_few_descriptors_most_of_them(program: subprocess.Popen[str]) -> None:
    assert program.stdout is not None
    port = int(program.stdout.readline())
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(port)).sendall(b"GET /metrics HTTP/1.1\r\n")
        assert b"prectr_up 1.0" in ask(port, "/metrics").body
        # Of 64: standard streams, listener and event loop take some 10, connections an eighth.
        assert tell(program, "take") >= 40
        tell(program, "give back")
    assert program.poll() is None


def test_a_process_out_of_descriptors_goes_on_and_serves_once_it_has_some(program: subprocess.Popen[str]) -> None:
    assert program.stdout is not None
    assert program.stderr is not None
    port = int(program.stdout.readline())
    assert tell(program, "take") > 0
    with connect(port) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        lines = [program.stderr.readline() for _ in range(2)]
        assert lines[1] == f"WARNING port {port}: cannot accept connections: Too many open files\n"
        # Time for further attempts, which must not be logged; if there are none, this test sees less.
        time.sleep(0.5)
        tell(program, "give back")
        assert client.recv(12) == b"HTTP/1.1 200"
    assert program.poll() is None
    program.kill()
    # One line, not one per attempt, and no traceback.
    assert program.stderr.read() == ""


def test_the_bound_follows_the_limit_of_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    with serving(Limits(connections=3, deadline=NEVER, grace=NEVER)) as port, stalled_readers(port, 3):
        assert ask(port).status == 503
    monkeypatch.setattr(resource, "getrlimit", lambda _: (40, 40))
    with serving(Limits(deadline=NEVER, grace=NEVER)) as port, stalled_readers(port, 5):
        assert ask(port).status == 503
