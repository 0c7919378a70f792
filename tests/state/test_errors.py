"""Errors: the message with its remedies, for a library and as flags of the command line."""

import pytest

from prectr.ops.cli.remedies import with_flags
from prectr.state.errors import PrectrError, Remedy


def test_remedies_follow_the_message() -> None:
    error = PrectrError("run: is finished", Remedy.OTHER_RUN_DIR, Remedy.RESTART)
    assert str(error) == "run: is finished: use another run folder, or start the run over"
    assert with_flags(error) == "run: is finished: name another --run-dir, or start over with --restart"


def test_remedies_continue_a_message_that_names_one_already() -> None:
    error = PrectrError("log.jsonl has changed: put the old one back,", Remedy.RESTART)
    assert str(error) == "log.jsonl has changed: put the old one back, or start the run over"


def test_a_message_without_remedies_is_unchanged() -> None:
    assert str(PrectrError("log.jsonl: no such file")) == "log.jsonl: no such file"


@pytest.mark.parametrize("remedy", Remedy)
def test_every_remedy_has_words_for_the_command_line_and_names_no_flag_elsewhere(remedy: Remedy) -> None:
    error = PrectrError("failed", remedy)
    assert "--" not in str(error)
    assert with_flags(error).startswith("failed: ")
