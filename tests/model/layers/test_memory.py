"""Memory that is not there is told before it is taken."""

from pathlib import Path

import pytest
import torch

from prectr.model.config import TrainerConfig
from prectr.model.layers.memory import available_memory, require_memory
from prectr.model.models.registry import make_model
from prectr.state.errors import ConfigError

CPU = torch.device("cpu")
GIB = 1 << 30


def test_more_than_is_available_is_an_error_that_says_both() -> None:
    require_memory(GIB, CPU, "a table", available=GIB)
    with pytest.raises(ConfigError, match=r"^a table needs 3\.0 GiB of memory, and 1\.5 GiB are available$"):
        require_memory(3 * GIB, CPU, "a table", available=3 * GIB // 2)


def test_a_table_that_no_machine_holds_names_its_setting() -> None:
    with pytest.raises(ConfigError, match=r"dnn with embedding_rows 1,099,511,627,776, .* needs"):
        make_model(TrainerConfig(model="dnn", embedding_rows=1 << 40), CPU)


@pytest.mark.parametrize("model", ["dnn", "prectr-v2"])
def test_layers_that_no_machine_holds_are_refused_before_they_are_made(model: str) -> None:
    hidden = (1 << 16,) * 64  # 64 layers of 16 GiB
    with pytest.raises(ConfigError, match=rf"{model} with hidden \[65536, 65536, .* needs [0-9,.]+ GiB of memory"):
        make_model(TrainerConfig(model=model, hidden=hidden), CPU)


def test_the_smaller_of_machine_and_container_counts(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       100 kB\nMemAvailable:   80 kB\n")
    assert available_memory(meminfo, tmp_path) == 80 * 1024
    (tmp_path / "memory.max").write_text("50000\n")
    (tmp_path / "memory.current").write_text("20000\n")
    assert available_memory(meminfo, tmp_path) == 30_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(meminfo, tmp_path) == 80 * 1024
    assert available_memory(tmp_path / "missing", tmp_path / "missing") is None
