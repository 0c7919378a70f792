"""Benchmarks: each is a command, `python -m bench.NAME`, that prints ratios within one run."""
