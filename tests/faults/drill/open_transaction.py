"""A program that keeps a transaction open on search-events, until it is killed; its argument is the broker."""

import sys
import time

from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics

if __name__ == "__main__":
    producer = Connection(sys.argv[1], connect_timeout=60).producer(
        transactional_id="nightly-import", transaction_timeout_ms=900_000
    )
    producer.init_transactions()
    producer.begin_transaction()
    for number in range(len(producer.partitions_for(Topics("").events))):
        producer.send(Topics("").events, b"", partition=number)
    producer.flush()
    time.sleep(86_400)
