"""Entry point of `python -m bench.train`."""

import typer

from bench.train.benchmark import main

typer.run(main)
