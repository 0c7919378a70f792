"""Entry point of `python -m bench.relevance`."""

from bench.relevance.benchmark import main

main()
