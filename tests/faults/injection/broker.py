"""Faults of the broker: killed, away when a process starts, refusing what it allowed."""

import time

from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)

from tests.faults.injection.restart import EXIT_TIMEOUT, Injected, await_reports, describe_process, restart
from tests.faults.system import STREAMS, TRAINER, LiveSystem

_PRINCIPAL = "User:ANONYMOUS"
"""Every client of the broker: it asks for no login."""


def kill_broker(system: LiveSystem) -> Injected:
    system.run_for(system.rng.uniform(0, 2))
    recovery = system.start_recovery_timer(STREAMS[0])
    killed = time.monotonic()
    system.broker.kill()
    await_reports(system)
    system.run_for(system.rng.choice((0.0, system.rng.uniform(0, 3))))
    system.broker.start()
    return Injected(f"kill -9 of the broker, up again after {time.monotonic() - killed:.1f} s", recovery)


def broker_away_at_start(system: LiveSystem) -> Injected:
    name = system.rng.choice(system.victims(*STREAMS, TRAINER))
    system.run_for(system.rng.uniform(0, 2))
    recovery = system.start_recovery_timer(name)
    system.kill(name)
    system.broker.kill()
    system.start(name)
    started = time.monotonic()
    await_reports(system)
    system.broker.start()
    away = time.monotonic() - started
    return Injected(f"{describe_process(name)} is started while the broker is down, for another {away:.1f} s", recovery)


def rights_taken(system: LiveSystem) -> Injected:
    topics, group_prefix = system.topics, system.live.prefix
    resource, operation = system.rng.choice(
        (
            (ResourcePattern(ResourceType.TOPIC, topics.events), ACLOperation.READ),
            (ResourcePattern(ResourceType.TOPIC, topics.joined_pages), ACLOperation.WRITE),
            (ResourcePattern(ResourceType.TOPIC, topics.examples), ACLOperation.WRITE),
            (ResourcePattern(ResourceType.GROUP, f"{group_prefix}join"), ACLOperation.READ),
        )
    )
    system.run_for(system.rng.uniform(0, 2))
    recovery = system.start_recovery_timer(STREAMS[0])
    # With an ACL on a resource, what none allows is denied.
    allow = ACL(_PRINCIPAL, "*", ACLOperation.ALL, ACLPermissionType.ALLOW, resource)
    deny = ACL(_PRINCIPAL, "*", operation, ACLPermissionType.DENY, resource)
    try:
        system.connection.call_admin(lambda admin: admin.create_acls([allow, deny]))
        for name in STREAMS:
            system.wait_for_end(name, 1, EXIT_TIMEOUT)
        await_reports(system)
    finally:
        pattern = ResourcePatternFilter(resource.resource_type, resource.resource_name, ACLResourcePatternType.LITERAL)
        every = ACLFilter(_PRINCIPAL, "*", ACLOperation.ANY, ACLPermissionType.ANY, pattern)
        system.connection.call_admin(lambda admin: admin.delete_acls([every]))
    started_again = "".join(restart(system, name) for name in STREAMS)
    kind = resource.resource_type.name.lower()
    return Injected(
        f"an ACL denies {operation.name.capitalize()} on {kind} {resource.resource_name.removeprefix(group_prefix)}: "
        f"both stream processes end, and the ACL is removed{started_again}",
        recovery,
    )
