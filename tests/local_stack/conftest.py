"""Ports and a folder for `make up`; everything is stopped at the end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from prectr.ops.local_stack.stop import stop
from tests.local_stack.machine import Machine, machine


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Machine]:
    prepared = machine(tmp_path / "up")
    try:
        yield prepared
    finally:
        stop(prepared.folder)
