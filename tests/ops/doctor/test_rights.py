"""What an ACL denies is found by `doctor`, by topic and group, with the operation."""

from typing import Any

import pytest

from prectr.ops.doctor.broker.rights import check_rights
from prectr.stream.kafka.client.topics import Topics

ALL = ["READ", "WRITE", "CREATE", "DESCRIBE"]
TOPICS = Topics("p.")


class Described:
    """A connection to a broker that allows all but this on one topic or group."""

    def __init__(self, name: str = "", denied: str = "", *, groups_are_new: bool = False) -> None:
        self._name, self._denied, self._groups_are_new = name, denied, groups_are_new

    def call_admin(self, request: Any) -> Any:
        return request(self)

    def describe_topics(self, names: list[str]) -> list[dict[str, Any]]:
        return [{"name": name, "authorized_operations": self._allowed(name)} for name in names]

    def describe_groups(self, names: list[str]) -> dict[str, Any]:
        return {
            name: {"authorized_operations": None if self._groups_are_new else self._allowed(name)} for name in names
        }

    def _allowed(self, name: str) -> list[str]:
        return [operation for operation in ALL if (name, operation) != (self._name, self._denied)]


def findings(connection: Described) -> list[tuple[str, str, str]]:
    found = check_rights(connection, TOPICS, "g.")  # type: ignore[arg-type]
    return [(finding.severity, finding.name, f"{finding.observed} {finding.advice}") for finding in found]


@pytest.mark.parametrize(
    ("name", "denied", "flags"),
    [
        ("p.search-events", "READ", "--operation Read --topic p.search-events"),
        ("p.joined-pages", "WRITE", "--operation Write --topic p.joined-pages"),
        ("p.training-examples", "DESCRIBE", "--operation Describe --topic p.training-examples"),
        ("g.join", "READ", "--operation Read --group g.join"),
    ],
)
def test_a_right_that_is_denied_is_named_with_the_command_that_grants_it(name: str, denied: str, flags: str) -> None:
    ((severity, found, text),) = findings(Described(name, denied))
    assert (severity, found.rpartition(" ")[2]) == ("warning", name)
    assert denied.capitalize() in text
    assert flags in text


@pytest.mark.parametrize(
    "connection", [Described(), Described(groups_are_new=True), Described("p.search-events", "WRITE")]
)
def test_rights_that_are_not_needed_or_not_known_are_no_error(connection: Described) -> None:
    assert [severity for severity, _, _ in findings(connection)] == ["ok"]
