"""A monitor's folder is of one system."""

from pathlib import Path

import msgspec
import pytest

from prectr.ops.monitor.data_dir_owner import DataDirOwner, claim
from prectr.state.errors import StateError

OURS = DataDirOwner("cluster-1", "model-quality", "topic-1", "prectr-monitor")


def test_an_empty_folder_is_claimed_and_recognised(tmp_path: Path) -> None:
    claim(tmp_path, OURS)
    claim(tmp_path, OURS)
    with pytest.raises(StateError, match="belong to another system") as found:
        claim(tmp_path, msgspec.structs.replace(OURS, topic_id="topic-2", cluster="cluster-2"))
    assert "cluster is cluster-2, was cluster-1; topic_id is topic-2, was topic-1. Use another --data-dir" in str(
        found.value
    )


@pytest.mark.parametrize("content", ["", "{}", '{"cluster": 1}'])
def test_a_corrupt_owner_file_is_an_error_that_says_what_to_do(content: str, tmp_path: Path) -> None:
    (tmp_path / "owner.json").write_text(content)
    with pytest.raises(StateError, match=r"owner\.json: .*delete the folder"):
        claim(tmp_path, OURS)
