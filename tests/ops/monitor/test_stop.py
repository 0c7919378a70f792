"""A monitor that is requested to stop ends, whatever the tasks of its Kafka client do."""

import asyncio
from types import SimpleNamespace

import pytest

from prectr.ops.monitor import reader


async def _ignores_cancellation() -> None:
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


async def _never_starts() -> None:
    await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_STOP_TIMEOUT", 0.05)
    monkeypatch.setattr(reader, "_CANCEL_TIMEOUT", 0.05)


def test_a_task_that_ignores_its_cancellation_does_not_keep_the_loop() -> None:
    async def reading() -> str | None:
        background.append(asyncio.create_task(_ignores_cancellation()))
        await asyncio.sleep(0)
        return "ended"

    background: list[asyncio.Task[None]] = []
    assert reader._run(reading()) == "ended"
    assert not background[0].done()


def test_an_application_that_never_stops_is_left() -> None:
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
