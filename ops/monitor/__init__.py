"""The monitor: quality of the whole cluster by windows of event time, from what the trainers publish."""
