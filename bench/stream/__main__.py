"""Entry point of `python -m bench.stream`."""

import sys

import typer

from bench.stream.benchmark import main
from prectr.state.errors import PrectrError

try:
    typer.run(main)
except PrectrError as error:
    sys.exit(f"bench.stream: {error}")
