"""Signals: what asks for a stop, and what is left as it was."""

import os
import signal
from collections.abc import Iterator

import pytest

from prectr.ops.cli.signals import stop_signals

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    # Whoever runs the tests may ignore some, as nohup does.
    previous = {each: signal.signal(each, signal.SIG_DFL) for each in STOPPING}
    yield
    for each, handler in previous.items():
        signal.signal(each, handler)


@pytest.mark.parametrize("number", STOPPING)
def test_ctrl_c_a_termination_and_a_closed_terminal_ask_for_a_stop(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_signals() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        # The second one ends the process at once, as it would without us.
        assert signal.getsignal(number) is before
    assert signal.getsignal(number) is before


def test_under_nohup_a_closed_terminal_is_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_ctrl_c_is_heard_where_it_was_ignored() -> None:
    """A shell without job control starts background processes so."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
