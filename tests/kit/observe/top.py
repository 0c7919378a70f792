"""What `prectr top` looks at, and what it shows of it."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

UNREACHABLE_URL = "http://127.0.0.1:1"


class TextServer:
    """Serves one text until it is closed; `text` may be changed."""

    def __init__(self, text: str | bytes, status: int = 200, port: int = 0) -> None:
        server = self
        self.text = text

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = server.text if isinstance(server.text, bytes) else server.text.encode()
                self.send_response(status)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = int(self._server.server_port)
        self.url = f"http://127.0.0.1:{self.port}/metrics"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> "TextServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def join_task_metrics(partition: int, *, pages: int = 100, watermark: float = 1_000_000.0, offset: int = 130) -> str:
    """What a stream worker says of one sessions task."""
    labels = f'stage="join",partition="{partition}"'
    return f"""
prectr_task_offset{{{labels}}} {offset}
prectr_consumer_lag_records{{{labels}}} {10 * (partition + 1)}
prectr_restore_remaining_records{{{labels}}} 0
prectr_watermark_timestamp_seconds{{{labels}}} {watermark}
prectr_emitted_records_total{{{labels}}} {pages - 20}
prectr_snapshot_age_seconds{{{labels}}} 12.5
prectr_events_total{{{labels},type="page"}} {pages}
prectr_events_total{{{labels},type="click"}} 50
prectr_events_total{{{labels},type="unreadable"}} 1
prectr_pages_total{{{labels},outcome="emitted"}} {pages - 20}
prectr_pages_total{{{labels},outcome="dead_letter"}} 2
prectr_clicks_total{{{labels},outcome="joined"}} 40
prectr_clicks_total{{{labels},outcome="late"}} 3
prectr_pending_pages{{{labels}}} 18
prectr_pending_clicks{{{labels}}} 7
prectr_dead_letters_total{{{labels},reason="json"}} 1
"""


def table_row(text: str, *words: str) -> str:
    """The one line that begins with these words."""
    found = [line.strip() for line in text.splitlines() if line.split()[: len(words)] == list(words)]
    assert len(found) == 1, text
    return " ".join(found[0].split())
