"""A blocking call of the client has a deadline, and one that never returns holds up no other."""

import threading

import pytest
from kafka.errors import KafkaError, KafkaTimeoutError

from prectr.stream.kafka.transactions import deadline
from prectr.stream.kafka.transactions.deadline import call_with_timeout


def test_calls_one_after_the_other_share_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the idle threads of earlier tests, any of which could take a call.
    monkeypatch.setattr(deadline, "_threads", deadline._DaemonThreads())
    threads: list[int] = []
    for _ in range(5):
        call_with_timeout(10.0, lambda: threads.append(threading.get_ident()))
    assert len(threads) == 5
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()


def test_a_call_without_an_answer_raises_and_holds_up_no_other() -> None:
    released, entered = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        released.wait()

    try:
        with pytest.raises(KafkaTimeoutError, match=r"no answer in 0\.05 s"):
            call_with_timeout(0.05, hang)
        assert entered.wait(10.0)
        done: list[int] = []
        call_with_timeout(10.0, lambda: done.append(1))
        assert done == [1]
    finally:
        released.set()


def test_an_error_of_the_call_is_raised_to_its_caller() -> None:
    def fail() -> None:
        raise KafkaError("rejected")

    with pytest.raises(KafkaError, match="rejected"):
        call_with_timeout(10.0, fail)


def test_the_threads_do_not_delay_the_exit_of_the_process() -> None:
    call_with_timeout(10.0, lambda: None)
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "transaction")
