"""A schema registry on a local port."""

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Registry:
    """Answers by path; what was asked for, in order; statuses to answer with first."""

    answers: Mapping[str, Any]
    login: tuple[str, str] | None = None
    url: str = ""
    asked: list[str] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)


def schema_answer(schema: Any, **more: Any) -> dict[str, Any]:
    """Return the registry's answer for a schema."""
    return {"schema": json.dumps(schema), **more}


@contextmanager
def running_registry(answers: Mapping[str, Any], login: tuple[str, str] | None = None) -> Iterator[Registry]:
    """Serve answers, JSON or bytes, by path."""
    registry = Registry(answers, login)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            registry.asked.append(self.path)
            if registry.failures:
                self._answer(registry.failures.pop(0), b"")
            elif login is not None and self.headers.get("Authorization") != _basic(*login):
                self._answer(401, b"")
            elif self.path not in registry.answers:
                self._answer(404, b'{"error_code": 40403, "message": "Schema not found"}')
            else:
                found = registry.answers[self.path]
                self._answer(200, found if isinstance(found, bytes) else json.dumps(found).encode())

        def _answer(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    registry.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
