"""Ports that are taken: whose they are, which are waited for, and which are refused at once."""

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from threading import Timer

import pytest

from prectr.ops.http.listener import listen
from prectr.ops.http.port_holder import find_port_holder
from prectr.ops.live.metrics_ports import await_free_ports
from prectr.state.errors import PrectrError
from testkit.kafka_broker import free_ports


@pytest.fixture
def connection() -> Iterator[socket.socket]:
    """A connection whose own port is one that a server wants."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        yield client


def test_a_connection_that_has_the_port_is_waited_for_and_named(
    connection: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    port = connection.getsockname()[1]
    holder = find_port_holder(port)
    assert holder is not None
    assert (holder.listens, holder.pid) == (False, os.getpid())

    def end() -> None:
        # Reset: a port that is closed in order stays in TIME_WAIT.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()

    Timer(1.0, end).start()
    with caplog.at_level(logging.WARNING), listen("127.0.0.1", port, served="metrics", port_option="--port") as found:
        assert found.getsockname()[1] == port
    assert [record.getMessage() for record in caplog.records] == [
        f"port {port} for metrics: {holder} has it: waiting for its end"
    ]


def test_the_server_that_has_the_port_is_named_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PrectrError, match=rf"a server of process {os.getpid()} \(.* has the port: choose another"):
            listen("127.0.0.1", port, served="metrics", port_option="--metrics-port")
        with pytest.raises(PrectrError, match=rf"port {port}, for metrics of train: a server of process {os.getpid()}"):
            await_free_ports([("metrics of train", port)], lambda: False, 60)


def test_a_process_of_an_earlier_run_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    (port,) = free_ports(1)
    code = f"import socket, sys; s = socket.create_server(('127.0.0.1', {port})); print(flush=True); sys.stdin.read()"
    earlier = subprocess.Popen(
        [sys.executable, "-c", code, "prectr.ops.live.parent_watchdog"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert earlier.stdout is not None
    earlier.stdout.readline()
    Timer(1.0, earlier.kill).start()
    await_free_ports([("metrics of train", port)], lambda: False, 60)
    earlier.communicate()
    assert find_port_holder(port) is None
    assert "of an earlier run, has it: waiting for its end" in caplog.text


def test_free_ports_are_in_a_row_below_those_of_connections() -> None:
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        first_of_connections = int(file.read().split()[0])
    ports = free_ports(6)
    assert ports == list(range(ports[0], ports[0] + 6))
    assert ports[-1] < first_of_connections
