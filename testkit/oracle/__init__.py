"""A brute-force implementation of the join and of the aggregates, which shares no code with the stages."""
