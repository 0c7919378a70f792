"""Entry point of `python -m bench.world`."""

from bench.world.benchmark import main

main()
