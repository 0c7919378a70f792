"""`python -m bench.stream`: the live system beside other stream processors."""
