"""The rights that the processes of the system need: those that an ACL denies this client, by topic and group."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prectr.ops.doctor.broker.groups import STAGES
from prectr.ops.doctor.findings import Finding
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics

_NAME: Final = "rights"
_READ_AND_WRITE: Final = ("DESCRIBE", "READ", "WRITE")
_GROUP: Final = ("DESCRIBE", "READ")


def check_rights(connection: Connection, topics: Topics, group_prefix: str) -> Iterator[Finding]:
    """Compare the operations that the broker allows this client with those that stages and trainer need.

    Raises:
        PrectrError: the broker does not answer.
    """
    # The stages read what they write, to look for open transactions.
    needed = dict.fromkeys(topics.all, _READ_AND_WRITE) | {topics.events: ("DESCRIBE", "READ")}
    described = connection.call_admin(lambda admin: admin.describe_topics(list(topics.all)))
    groups = [f"{group_prefix}{stage}" for stage in STAGES]
    described_groups = connection.call_admin(lambda admin: admin.describe_groups(groups))
    problems = [
        *(_problem("topic", topic["name"], topic, needed[topic["name"]]) for topic in described),
        *(_problem("group", group, described_groups[group], _GROUP) for group in groups),
    ]
    denied = [problem for problem in problems if problem is not None]
    yield from denied
    if not denied:
        yield Finding(_NAME, "ok", "no ACL denies this client what stages and trainer need")


def _problem(kind: str, name: str, described: Mapping[str, Any], needed: tuple[str, ...]) -> Finding | None:
    """What is denied; None if nothing is, or the broker does not report it, as of a group without members."""
    allowed = described.get("authorized_operations")
    missing = [] if allowed is None else [operation.capitalize() for operation in needed if operation not in allowed]
    if not missing:
        return None
    flags = " ".join(f"--operation {operation}" for operation in missing)
    grant = f"kafka-acls.sh --add --allow-principal User:… {flags} --{kind} {name}"
    advice = f"if this is the login of the processes, grant it: {grant}"
    return Finding(f"{_NAME} on {kind} {name}", "warning", f"this client lacks {' and '.join(missing)}", advice)
