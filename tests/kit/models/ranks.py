"""Starts a program of tests in R processes that train together, as torchrun does, on this machine."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_TIMEOUT: Final = 240
_ROOT: Final = Path(__file__).resolve().parents[3]


def start_ranks(module: str, ranks: int, *arguments: object) -> list[subprocess.Popen[str]]:
    """`python -m MODULE ARGUMENTS` as every rank; with one rank, without any of torchrun's variables."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return [_process(module, rank, ranks, port, arguments) for rank in range(ranks)]


def finish_ranks(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    """What each of them printed; they must all have ended well."""
    outs = [process.communicate(timeout=_TIMEOUT) for process in processes]
    for process, (_, err) in zip(processes, outs, strict=True):
        assert process.returncode == 0, f"exit {process.returncode}\n{err[-4000:]}"
    return [out for out, _ in outs]


def _process(module: str, rank: int, ranks: int, port: str, arguments: Sequence[object]) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RANK", "WORLD_SIZE"))}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT)}
    if ranks > 1:
        environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(ranks)}
        environment |= {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
