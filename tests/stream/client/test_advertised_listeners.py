"""Which of the addresses that brokers advertise can be reached: one is enough, and a failure has its cause."""

import socket
from collections.abc import Iterator

import pytest

from prectr.stream.kafka.client.advertised_listeners import unreachable_listeners
from prectr.stream.kafka.client.client_internals import BrokerAddress
from testkit.kafka_broker import free_ports


@pytest.fixture
def listener() -> Iterator[BrokerAddress]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield BrokerAddress("127.0.0.1", server.getsockname()[1])


def closed() -> BrokerAddress:
    return BrokerAddress("127.0.0.1", free_ports(1)[0])


def test_one_address_that_takes_connections_is_enough(listener: BrokerAddress) -> None:
    assert unreachable_listeners([closed(), listener]) == ""


def test_a_cluster_that_names_no_address_is_not_judged() -> None:
    assert unreachable_listeners([]) == ""


def test_unreachable_addresses_are_listed_with_the_cause_of_each() -> None:
    first, second = closed(), BrokerAddress("no-such-host.invalid", 9092)
    found = unreachable_listeners([first, second])
    assert found.startswith(f"127.0.0.1:{first.port} (Connection refused), no-such-host.invalid:9092 (")


def test_an_address_of_ip_version_6_has_brackets() -> None:
    assert unreachable_listeners([BrokerAddress("::1", free_ports(1)[0])]).startswith("[::1]:")
