"""Entry point of `python -m bench.mutations`."""

import sys

import typer

from bench.mutations.benchmark import main
from prectr.state.errors import PrectrError

try:
    typer.run(main)
except PrectrError as error:
    sys.exit(f"bench.mutations: {error}")
