"""A monitor's folder is of one system."""

from pathlib import Path

import msgspec
import pytest

from prectr.ops.monitor.data_dir_owner import Belonging, claim
from prectr.state.errors import StateError

OURS = Belonging("cluster-1", "model-quality", "topic-1", "prectr-monitor")


def test_an_empty_folder_is_taken_and_known_again(tmp_path: Path) -> None:
    claim(tmp_path, OURS)
    claim(tmp_path, OURS)
    with pytest.raises(StateError, match="of another system") as found:
        claim(tmp_path, msgspec.structs.replace(OURS, topic_id="topic-2", cluster="cluster-2"))
    assert "cluster is cluster-2, was cluster-1; topic_id is topic-2, was topic-1. Use another --data-dir" in str(
        found.value
    )


@pytest.mark.parametrize("content", ["", "{}", '{"cluster": 1}'])
def test_a_damaged_note_is_an_error_that_says_what_to_do(content: str, tmp_path: Path) -> None:
    (tmp_path / "belongs-to.json").write_text(content)
    with pytest.raises(StateError, match=r"belongs-to\.json: .*delete the folder"):
        claim(tmp_path, OURS)
