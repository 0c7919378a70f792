"""Records which system a monitor's folder belongs to, so that tables of two systems are never mixed."""

from pathlib import Path
from typing import Final

import msgspec

from prectr.ops.json_file import write_json
from prectr.state.encoding import DAMAGE
from prectr.state.errors import StateError
from prectr.state.identity import config_diff

_FILE: Final = "owner.json"


class DataDirOwner(msgspec.Struct, frozen=True):
    """cluster, topic_id: ids given by the broker; topic_id changes if a topic is recreated under the same name."""

    cluster: str
    topic: str
    topic_id: str
    group: str


def claim(folder: Path, owner: DataDirOwner) -> None:
    """Claim an empty folder for this system, or check that the folder belongs to it.

    Raises:
        StateError: the folder belongs to another system, or cannot be read or written.
    """
    path = folder / _FILE
    try:
        if not path.exists():
            write_json(path, owner)
            return
        recorded = msgspec.json.decode(path.read_bytes(), type=DataDirOwner)
    except (OSError, *DAMAGE) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StateError(
            f"{path}: cannot be read or written ({reason}): delete the folder; its tables are restored from Kafka"
        ) from error
    differences = config_diff(msgspec.structs.asdict(owner), msgspec.structs.asdict(recorded))
    if differences:
        raise StateError(
            f"{folder}: the tables belong to another system: {differences}. Use another --data-dir (and, if "
            "the topics were recreated, another --group-prefix: the changelog still has the old records)"
        )
