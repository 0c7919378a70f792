"""A brute-force oracle of the output of a replay; it shares no code with the stages."""
