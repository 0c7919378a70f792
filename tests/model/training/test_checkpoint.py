import dataclasses
import json
from pathlib import Path

import pytest

from prectr.model.training import checkpoint_files
from prectr.model.training.trainer import Trainer
from prectr.state.errors import CheckpointError
from tests.kit.models.examples import random_examples, small_config


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    trainer = Trainer(small_config())
    trainer.consume(random_examples(21), 0)
    trainer.save(tmp_path)
    return tmp_path


def test_a_checkpoint_names_its_configuration(saved: Path) -> None:
    assert checkpoint_files.read_config(saved) == small_config()


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("model", "wide-deep", "model is wide-deep, was wide-deep[+]"),
        ("batch_pages", 8, "batch_pages is 8, was 4"),
        ("seed", 3, "seed is 3, was 0"),
        ("hidden", (7, 7), r"hidden is \[7, 7\], was \[64, 32\]"),
        ("wide_rows", 8192, "wide_rows is 8192, was 4096"),
    ],
)
def test_another_configuration_is_refused_by_name(saved: Path, setting: str, value: object, message: str) -> None:
    config = dataclasses.replace(small_config(), **{setting: value})
    with pytest.raises(CheckpointError, match=message):
        Trainer(config).load(saved)


@pytest.mark.parametrize(("then", "now"), [((), ("debias",)), (("debias",), ()), (("debias",), ("incentive",))])
def test_another_set_of_switches_is_refused_by_name(
    then: tuple[str, ...], now: tuple[str, ...], tmp_path: Path
) -> None:
    Trainer(small_config(model="prectr-v2", without=then)).save(tmp_path)
    with pytest.raises(CheckpointError, match=r"without is .*debias"):
        Trainer(small_config(model="prectr-v2", without=now)).load(tmp_path)


def test_a_checkpoint_may_move_to_another_device(saved: Path) -> None:
    Trainer(dataclasses.replace(small_config(), device="auto")).load(saved)


@pytest.mark.parametrize("name", [checkpoint_files.TENSORS, checkpoint_files.PROGRESS, checkpoint_files.HEADER])
def test_a_truncated_file_is_rejected_by_name(saved: Path, name: str) -> None:
    path = saved / name
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match=name):
        Trainer(small_config()).load(saved)


@pytest.mark.parametrize("name", [checkpoint_files.TENSORS, checkpoint_files.PROGRESS])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_flipped_bit_is_refused(saved: Path, name: str, share: float) -> None:
    path = saved / name
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 4
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="corrupt"):
        Trainer(small_config()).load(saved)


@pytest.mark.parametrize("name", [checkpoint_files.TENSORS, checkpoint_files.PROGRESS, checkpoint_files.HEADER])
def test_a_missing_file_is_refused_by_name(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        Trainer(small_config()).load(saved)


def test_another_format_is_refused(saved: Path) -> None:
    path = saved / checkpoint_files.HEADER
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(CheckpointError, match=r"format 2.*reads format 1"):
        Trainer(small_config()).load(saved)


def test_tensors_of_another_shape_are_refused(saved: Path) -> None:
    # A header that claims a larger network than the tensors beside it were saved from.
    path = saved / checkpoint_files.HEADER
    header = json.loads(path.read_text())
    header["config"]["hidden"] = [65, 32]
    path.write_text(json.dumps(header))
    with pytest.raises(CheckpointError, match="does not hold the state of model wide-deep"):
        Trainer(dataclasses.replace(small_config(), hidden=(65, 32))).load(saved)


def test_a_checkpoint_holds_only_the_rows_that_were_trained(saved: Path) -> None:
    assert (saved / checkpoint_files.TENSORS).stat().st_size < 4096 * 8 * 4 * 2
