"""A trainer's state in a folder: tensors as safetensors, the rest as msgpack, and a header that vouches for both."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from prectr.model.config import TrainerConfig
from prectr.model.quality.quality import QualityState
from prectr.state.errors import CheckpointError
from prectr.state.identity import config_diff
from prectr.stream.records import Example

FORMAT: Final = 1
HEADER: Final = "trainer.json"
TENSORS: Final = "trainer.safetensors"
PROGRESS: Final = "trainer.msgpack"

_IGNORED_SETTINGS: Final = frozenset({"device"})
"""Fields that may differ from the checkpoint's: a model trained on a GPU can be scored anywhere."""


SettingValue = str | int | float | bool | list[str | int | float]
"""The value of one setting, as JSON has it."""


class CheckpointHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint is; readable without torch."""

    format: int
    config: dict[str, SettingValue]
    sha256: dict[str, str]
    """Of each other file of the checkpoint, by name."""


class TrainerProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the trainer is, besides its tensors."""

    batches: int
    pages_trained: int
    open_batch: tuple[Example, ...]
    """Pages taken and not yet trained on, in the one order."""
    quality: QualityState
    newest: tuple[Example, ...] = ()
    """The newest pages trained on, of a model that infers levels."""


class TrainerCheckpoint(NamedTuple):
    """What `read` gives back of what `write` was given."""

    progress: TrainerProgress
    tensors: dict[str, Tensor]


_encode = msgspec.msgpack.Encoder().encode
_encode_json = msgspec.json.Encoder().encode
_decode_progress = msgspec.msgpack.Decoder(TrainerProgress).decode
_decode_header = msgspec.json.Decoder(CheckpointHeader).decode


def write(folder: Path, config: TrainerConfig, progress: TrainerProgress, tensors: dict[str, Tensor]) -> None:
    """Write a checkpoint into an empty folder; to sync it and to rename it into place is the caller's.

    tensors: on the CPU, contiguous.
    """
    files = {TENSORS: save_tensors(tensors), PROGRESS: _encode(progress)}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    header = CheckpointHeader(
        format=FORMAT,
        config=_settings(config),
        sha256={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    )
    (folder / HEADER).write_bytes(msgspec.json.format(_encode_json(header), indent=2))


def read(folder: Path, config: TrainerConfig) -> TrainerCheckpoint:
    """Read what `write` wrote.

    CheckpointError: a file is missing or damaged, the format is another, or the checkpoint was written under
    another configuration (the message names each setting that differs).
    """
    header = _read_header(folder)
    _check_config(folder, header, config)
    files = {}
    for name in (TENSORS, PROGRESS):
        content = _read_file(folder / name)
        if hashlib.sha256(content).hexdigest() != header.sha256.get(name):
            raise CheckpointError(f"{folder / name} is damaged: its SHA-256 is not the one in {HEADER}; {_HINT}")
        files[name] = content
    try:
        return TrainerCheckpoint(_decode_progress(files[PROGRESS]), load_tensors(files[TENSORS]))
    except (msgspec.DecodeError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {folder} cannot be decoded: {error}; {_HINT}") from error


def read_config(folder: Path) -> TrainerConfig:
    """The configuration that a checkpoint was written under; CheckpointError as for `read`."""
    header = _read_header(folder)
    try:
        return msgspec.json.decode(_encode_json(header.config), type=TrainerConfig)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{folder / HEADER} holds a configuration that is not known: {error}; {_HINT}") from error


_HINT: Final = "take an older checkpoint, or start over in an empty --run-dir"


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; {_HINT}") from error


def _read_header(folder: Path) -> CheckpointHeader:
    path = folder / HEADER
    try:
        header = _decode_header(_read_file(path))
    except msgspec.DecodeError as error:
        raise CheckpointError(f"{path} is damaged: {error}; {_HINT}") from error
    if header.format != FORMAT:
        raise CheckpointError(
            f"{path} is of format {header.format}, this program reads format {FORMAT}: "
            "use the release that wrote it, or start over in an empty --run-dir"
        )
    return header


def _settings(config: TrainerConfig) -> dict[str, SettingValue]:
    """The configuration as it reads when it comes back from JSON."""
    return msgspec.json.decode(_encode_json(dataclasses.asdict(config)), type=dict[str, SettingValue])


def _check_config(folder: Path, header: CheckpointHeader, config: TrainerConfig) -> None:
    current, saved = _settings(config), header.config
    different = config_diff(
        {name: value for name, value in current.items() if name not in _IGNORED_SETTINGS},
        {name: value for name, value in saved.items() if name not in _IGNORED_SETTINGS},
    )
    if different:
        raise CheckpointError(
            f"checkpoint {folder} was written under another configuration: {different}. "
            "Set it back, or start over in an empty --run-dir"
        )
