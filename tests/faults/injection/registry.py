"""What does each kind of fault that the system goes on after."""

from collections.abc import Callable
from typing import Final

from tests.faults.injection import broker, clients, offsets, processes, storage
from tests.faults.injection.restart import Injected
from tests.faults.system import LiveSystem

INJECTORS: Final[dict[str, Callable[[LiveSystem], Injected]]] = {
    "kill-stream": processes.kill_stream,
    "kill-stream-at-point": processes.kill_stream_at_failpoint,
    "kill-in-rebalance": processes.kill_in_rebalance,
    "kill-trainer": processes.kill_trainer,
    "kill-in-checkpoint": processes.kill_in_checkpoint,
    "kill-broker": broker.kill_broker,
    "zombie": processes.zombie,
    "lose-state": storage.lose_state,
    "third-process": processes.third_process,
    "disk-full": storage.disk_full,
    "truncated-snapshot": storage.truncated_snapshot,
    "kill-in-snapshot": storage.kill_in_snapshot,
    "kill-in-restore": storage.kill_in_restore,
    "broker-away-at-start": broker.broker_away_at_start,
    "rights-taken": broker.rights_taken,
    "wrong-settings": clients.wrong_settings,
    "non-finite-gradient": clients.non_finite_gradient,
    "slow-clients": clients.slow_clients,
    "offsets-reset": offsets.offsets_reset,
}
"""By kind; those that end the log are in `log_endings`."""
