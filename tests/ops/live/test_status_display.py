"""What `prectr run` shows and logs: a producer that has fallen silent."""

import logging
import time
from pathlib import Path

import pytest

from prectr.ops.live import status_display
from prectr.ops.live.pipeline_status import PipelineStatus
from prectr.ops.live.status_display import DisplayState, InputSilence, StatusPoller, display

NOW = 1_700_000_000.0


def test_a_silence_far_longer_than_usual_is_noticed_and_ends_with_the_next_event() -> None:
    silence = InputSilence()
    for second in range(0, 60, 2):
        assert silence.seconds(1_000 + 10 * second, NOW + second) is None
    assert silence.seconds(1_580, NOW + 118) is None
    assert silence.seconds(1_580, NOW + 119) == 61.0
    assert silence.seconds(1_581, NOW + 120) is None


def test_a_system_without_events_is_not_silent() -> None:
    silence = InputSilence()
    assert silence.seconds(0, NOW) is None
    assert silence.seconds(0, NOW + 3_600) is None


class _Silent(StatusPoller):
    """Has seen a silence of two minutes."""

    @property
    def state(self) -> DisplayState:
        return DisplayState(PipelineStatus(10, [0], 5, 5), silence=120.0)


def test_a_silence_is_logged_once_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = iter(range(0, 10_000, 5))
    monkeypatch.setattr(status_display, "is_interactive", lambda: False)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    with display("", [], _Silent(lambda: pytest.fail("not started"), tmp_path)) as refresh:
        for _ in range(4):
            refresh()
    monkeypatch.undo()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings
    assert set(warnings) == {"no event has arrived for 2 min, far longer than usual: does the producer run?"}
    assert len(warnings) < 4
