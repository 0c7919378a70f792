"""A Kafka broker in memory, and its clients, for unit tests."""
