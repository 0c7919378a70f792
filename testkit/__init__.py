"""What tests and benchmarks share: a Kafka broker, a browser, the command, a TREC log reader."""
