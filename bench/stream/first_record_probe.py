"""Runs a Python program and records when it polled its first record: FILE MODULE ARGUMENTS…

Writes one line to FILE: the time (s since the epoch), and the user and system CPU seconds spent until then, which is
start-up: interpreter, imports, joining the group.
"""

import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer


def record_first_poll(path: Path) -> None:
    """Write to `path` when any consumer of this process first polls records; no overhead afterwards."""
    poll = KafkaConsumer.poll

    def recording_poll(self: Any, *args: Any, **kwargs: Any) -> Any:
        records = poll(self, *args, **kwargs)
        if records and KafkaConsumer.poll is recording_poll:
            KafkaConsumer.poll = poll
            spent = os.times()
            path.write_text(f"{time.time()} {spent.user} {spent.system}\n", encoding="utf-8")
        return records

    KafkaConsumer.poll = recording_poll


if __name__ == "__main__":
    record_first_poll(Path(sys.argv[1]))
    module = sys.argv[2]
    del sys.argv[1:3]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
