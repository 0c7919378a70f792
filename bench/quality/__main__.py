"""Entry point of `python -m bench.quality`."""

from bench.quality.benchmark import main

main()
