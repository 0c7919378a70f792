"""The Kafka runner: the same stages and order as the embedded one, exactly once, in any number of processes."""
