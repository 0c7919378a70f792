"""A second, brute-force account of what a replay must put out; it shares no code with the stages."""
