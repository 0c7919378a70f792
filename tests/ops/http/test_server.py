"""What the HTTP server answers to well-formed, malformed, oversized and foreign requests."""

import logging
import socket
import time
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from prectr.ops.http.allowed_hosts import AllowedHosts
from prectr.ops.http.listener import listen
from prectr.ops.http.request import Request
from prectr.ops.http.response import Response, text_response
from prectr.ops.http.server import HttpServer
from prectr.state.errors import PrectrError, UsageError
from tests.kit.observe.raw_http import ask, connect, exchange, read_answer

TEXT = "four\n"


def broken(_: Request) -> Response:
    raise KeyError("a bug")


def start() -> HttpServer:
    routes = {"/four": lambda _: text_response(HTTPStatus.OK, TEXT), "/broken": broken}
    listener = listen("127.0.0.1", 0, served="a test", port_option="--port")
    return HttpServer(listener, routes, AllowedHosts("127.0.0.1", ["ranker.example"]))


@pytest.fixture
def port() -> Iterator[int]:
    with start() as server:
        yield server.port


def test_get_answers_with_the_route_and_any_query(port: int) -> None:
    for path in ("/four", "/four?a=b", "/four?"):
        answer = ask(port, path)
        assert (answer.status, answer.body) == (200, TEXT.encode())
        assert answer.headers["connection"] == "close"


def test_head_has_the_headers_of_get_and_no_body(port: int) -> None:
    for path, host in (("/four", "localhost"), ("/else", "localhost"), ("/four", "evil.example")):
        get, head = (ask(port, path, method=method, host=host) for method in ("GET", "HEAD"))
        assert head.body == b""
        assert head.status == get.status
        assert int(head.headers["content-length"]) == len(get.body) > 0
        assert {**head.headers, "date": ""} == {**get.headers, "date": ""}


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "PUT", "DELETE", "TRACE", "get"])
def test_other_methods_are_told_the_allowed_ones(port: int, method: str) -> None:
    answer = ask(port, "/four", method=method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_an_unknown_path_is_told_the_known_ones(port: int) -> None:
    answer = ask(port, "/metrics/")
    assert answer.status == 404
    assert {"/four", "/healthz"} <= set(answer.body.decode().replace(",", "").split())


def test_it_serves_health(port: int) -> None:
    assert ask(port, "/healthz")[::2] == (200, b"ok\n")


def test_responses_cannot_be_framed_sniffed_or_stored_and_name_no_software(port: int) -> None:
    answers = [ask(port, "/four"), ask(port, "/x"), ask(port, host="evil.example"), exchange(port, b"?\r\n\r\n")]
    assert [answer.status for answer in answers] == [200, 404, 421, 400]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"].split("; ")
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost.",
        "localhost:9400",
        "127.0.0.1:9400",
        "10.1.2.3",
        "[::1]:9400",
        "[fe80::1]",
        "Ranker.Example",
        socket.gethostname(),
        f"{socket.gethostname()}:80",
    ],
)
def test_names_of_this_machine_addresses_and_allowed_names_are_served(port: int, host: str) -> None:
    assert ask(port, "/four", host=host).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:80", "sub.ranker.example"],
)
def test_a_foreign_name_is_told_how_to_allow_it(port: int, host: str) -> None:
    answer = ask(port, "/four", host=host)
    assert answer.status == 421
    assert f"--allowed-host {host.partition(':')[0]} " in answer.body.decode()
    assert TEXT not in answer.body.decode()


def test_the_host_of_an_absolute_target_is_the_one_that_counts(port: int) -> None:
    for target, host, status in (
        ("http://localhost/four", "evil.example", 200),
        ("http://evil.example/four", "localhost", 421),
        ("http://localhost:80", "localhost", 404),
    ):
        assert ask(port, target, host=host).status == status, target


def test_only_the_first_foreign_name_is_a_warning(port: int, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("one.example", "two.example"):
        ask(port, "/four", host=name)
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "--allowed-host one.example" in warning.getMessage()


MALFORMED = {
    b"GET /four\r\n\r\n": 400,
    b"\x16\x03\x01\x02\x00\x01\r\n\r\n": 400,
    b"\r\n\r\n": 400,
    b"GET  /four HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"GET /four HTTP/1.1\r\n\r\n": 400,
    b"GET /four HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n": 400,
    b"GET /four HTTP/1.1\r\nHost: \r\n\r\n": 400,
    b"GET /four HTTP/1.1\r\nHost: user@localhost\r\n\r\n": 400,
    b"GET /four HTTP/1.1\r\nHost: localhost/\r\n\r\n": 400,
    b"GET /four HTTP/1.1\r\nHost: localhost\r\n folded: a\r\n\r\n": 400,
    b"GET /four HTTP/1.1\r\nHost: localhost\r\nA : b\r\n\r\n": 400,
    b"GET /four HTTP/1.1\r\nHost: localhost\r\nA: b\rSet-Cookie: c\r\n\r\n": 400,
    b"GET /four HTTP/1.1\r\nHost: localhost\r\nA: \x1b[31m\r\n\r\n": 400,
    b"GET /\x1b[31m HTTP/1.1\r\nHost: localhost\r\n\r\n": 400,
    b"GET /\xc3\xa4 HTTP/1.1\r\nHost: localhost\r\n\r\n": 400,
    b"\x1b]0;evil\x07 /four HTTP/1.1\r\nHost: localhost\r\n\r\n": 400,
    b"GET /four HTTP/1.1\r\nHost: \x1b[31m\r\n\r\n": 400,
    b"PRI * HTTP/2.0\r\n\r\n": 505,
    b"GET /four HTTP/0.9\r\n\r\n": 505,
    b"GET four HTTP/1.1\r\nHost: localhost\r\n\r\n": 404,
    b"GET /four HTTP/1.0\r\n\r\n": 200,
    b"GET /four HTTP/1.1\nHost: localhost\n\n": 200,
    b"GET /four HTTP/1.1\r\nHost: localhost\r\nA:\t\xe4 \r\n\r\n": 200,
}


@pytest.mark.parametrize("request_bytes", MALFORMED)
def test_malformed_requests_are_refused_and_none_of_their_bytes_reach_the_log(
    port: int, request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        assert exchange(port, request_bytes).status == MALFORMED[request_bytes]
    assert all(record.getMessage().isprintable() and not record.exc_info for record in caplog.records)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /" + b"a" * 8_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /" + b"a" * 8_200 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        # Neither line has an end.
        (b"GET /" + b"a" * 100_000, 414),
        (b"GET /four HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 100_000, 431),
        (b"GET /four HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 2_500 + b"\r\n", 200),
        (b"GET /four HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 2_800 + b"\r\n", 431),
    ],
)
def test_request_line_and_headers_are_bounded(port: int, request_bytes: bytes, status: int) -> None:
    assert exchange(port, request_bytes).status == status


def test_a_request_may_come_in_pieces(port: int) -> None:
    with connect(port) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in (b"GET /fo", b"ur HTTP/1.1\r\nHost: localhost\r", b"\n", b"\r", b"\n"):
            client.sendall(part)
            # So that each is read on its own; if it is not, this test sees less.
            time.sleep(0.05)
        assert read_answer(client).body == TEXT.encode()


def test_a_route_that_fails_is_logged_and_the_next_request_served(port: int, caplog: pytest.LogCaptureFixture) -> None:
    answer = ask(port, "/broken")
    assert answer.status == 500
    assert b"a bug" not in answer.body
    (error,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert error.exc_info is not None
    assert ask(port, "/four").status == 200


def test_closing_drops_clients_and_frees_the_port() -> None:
    server = start()
    with connect(server.port) as waiting:
        waiting.sendall(b"G")
        # Served in order: the waiting client has been accepted before this answer.
        assert ask(server.port, "/four").status == 200
        server.close()
        assert waiting.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        connect(server.port)
    listen("127.0.0.1", server.port, served="a test", port_option="--port").close()


def test_closing_twice_is_closing_once() -> None:
    server = start()
    server.close()
    server.close()


def test_what_cannot_be_listened_on_is_named_with_a_remedy(port: int) -> None:
    with pytest.raises(UsageError, match="--port 65536 is out of range: use 1 to 65535"):
        listen("127.0.0.1", 65_536, served="a test", port_option="--port")
    with pytest.raises(PrectrError, match=rf"a test on 127\.0\.0\.1:{port}: Address already in use; .* another --port"):
        listen("127.0.0.1", port, served="a test", port_option="--port")
    for address in ("192.0.2.1", "a..b", "", "no-such-name.invalid", "2001:db8::1"):
        with pytest.raises(PrectrError, match=r"cannot serve a test on .* use an address of this machine"):
            listen(address, 0, served="a test", port_option="--port")


def test_a_name_is_listened_on_as_its_ipv4_address_and_allowed_as_host(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    listener = listen("localhost", 0, served="a test", port_option="--port")
    assert listener.getsockname()[0] == "127.0.0.1"
    listener.close()
    AllowedHosts("ranker.internal").check("ranker.internal:9400")


@pytest.mark.parametrize("name", ["http://ranker", "ranker:9400", "", "*", "a b", "a,b", "\x1b"])
def test_an_allowed_host_must_be_a_host_name(name: str) -> None:
    with pytest.raises(UsageError, match="is not a host name: give one name without scheme and port"):
        AllowedHosts("127.0.0.1", [name])
