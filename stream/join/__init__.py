"""Stage `join`: clicks are attributed to result pages, by user, in event time."""
