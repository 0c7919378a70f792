"""What a monitor's folder belongs to: tables of another system would be added to this one's."""

from pathlib import Path
from typing import Final

import msgspec

from prectr.state.errors import StateError
from prectr.state.identity import config_diff

_FILE: Final = "owner.json"


class DataDirOwner(msgspec.Struct, frozen=True):
    """cluster, topic_id: as the broker names them; topic_id differs when a topic is made anew under its old name."""

    cluster: str
    topic: str
    topic_id: str
    group: str


def claim(folder: Path, owner: DataDirOwner) -> None:
    """Make sure that what is in the folder is of this system; an empty one becomes this system's.

    Raises:
        StateError: it is another's, or cannot be read or written.
    """
    path = folder / _FILE
    try:
        if not path.exists():
            path.write_bytes(msgspec.json.format(msgspec.json.encode(owner)))
            return
        recorded = msgspec.json.decode(path.read_bytes(), type=DataDirOwner)
    except (OSError, msgspec.DecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StateError(
            f"{path}: cannot be read or written ({reason}): delete the folder, its tables come back from Kafka"
        ) from error
    differences = config_diff(msgspec.structs.asdict(owner), msgspec.structs.asdict(recorded))
    if differences:
        raise StateError(
            f"{folder}: the tables are of another system: {differences}. Use another --data-dir (and, where "
            "the topics were made anew, another --group-prefix: what the old ones held is still in the changelog)"
        )
