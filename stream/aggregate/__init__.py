"""Stage `aggregate`: per-query impressions and clicks by relevance level, point in time."""
