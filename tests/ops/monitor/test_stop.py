"""A monitor that is requested to stop ends, whatever the tasks of its Kafka client do."""

import asyncio
import gc
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from mode.threads import ServiceThread

from prectr.ops.monitor import consumer_thread, reader
from prectr.ops.monitor.consumer_thread import AbandonableThread, abandoned_after


async def _ignores_cancellation() -> None:
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


async def _never_starts() -> None:
    await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(reader, "_STOP_TIMEOUT", 0.05)
    monkeypatch.setattr(reader, "_CANCEL_TIMEOUT", 0.05)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(consumer_thread, "_threads", set())
    yield
    # Collected now, while errors of abandoned coroutines are ignored: raised within another test's ast.parse, they
    # make it fail.
    consumer_thread._threads.clear()
    gc.collect()


def test_a_task_that_ignores_its_cancellation_does_not_keep_the_loop() -> None:
    async def reading() -> str | None:
        background.append(asyncio.create_task(_ignores_cancellation()))
        await asyncio.sleep(0)
        return "ended"

    background: list[asyncio.Task[None]] = []
    assert reader._run(reading()) == "ended"
    assert not background[0].done()


def test_an_application_that_never_stops_is_abandoned() -> None:
    async def reading() -> str | None:
        app = SimpleNamespace(stop=_ignores_cancellation)
        starting = asyncio.create_task(_never_starts())
        await reader._stop(app, starting)
        assert starting.cancelled()
        return None

    assert reader._run(reading()) is None


def test_an_error_while_stopping_does_not_hide_why_reading_ended() -> None:
    async def fails() -> None:
        raise ConnectionError("no broker")

    async def reading() -> str | None:
        await reader._stop(SimpleNamespace(stop=fails), asyncio.create_task(fails()))
        return "lost the topic"

    assert reader._run(reading()) == "lost the topic"


class _Endless(ServiceThread):
    """A service whose thread ignores that it is to stop, as a Kafka client can without its broker."""

    Worker = AbandonableThread

    async def _serve(self) -> None:
        assert self._thread_running is not None
        self.parent_loop.call_soon_threadsafe(self._thread_running.set_result, None)
        await _ignores_cancellation()


def test_a_consumer_thread_that_does_not_end_is_abandoned(capfd: pytest.CaptureFixture[str]) -> None:
    """Its own `stop` blocks the event loop until the thread has ended, so no timeout of the loop can help."""

    async def run() -> AbandonableThread:
        service = _Endless()
        await service.start()
        thread = service._thread
        assert isinstance(thread, AbandonableThread)
        assert thread.is_alive()
        with abandoned_after(0.1):
            thread.stop()
        return thread

    thread = asyncio.run(run())
    thread.join(10)
    assert not thread.is_alive()
    del thread
    gc.collect()
    assert "Traceback" not in capfd.readouterr().err


def test_a_thread_that_has_ended_can_be_left() -> None:
    async def run() -> None:
        service = _Endless()
        await service.start()
        thread = service._thread
        assert isinstance(thread, AbandonableThread)
        thread.abandon()
        thread.join(10)
        thread.abandon()

    asyncio.run(run())
