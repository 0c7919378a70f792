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
from prectr.stream.records import Example

FORMAT: Final = 1
HEADER: Final = "trainer.json"
TENSORS: Final = "trainer.safetensors"
PROGRESS: Final = "trainer.msgpack"

_NOT_IDENTITY: Final = frozenset({"device"})
"""Fields that may differ from the checkpoint's: a model trained on a GPU can be scored anywhere."""


Setting = str | int | float | bool | list[str | int | float]
"""The value of one setting, as JSON has it."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint is; readable without torch."""

    format: int
    config: dict[str, Setting]
    sha256: dict[str, str]
    """Of each other file of the checkpoint, by name."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the trainer is, besides its tensors."""

    batches: int
    pages_trained: int
    open_batch: tuple[Example, ...]
    """Pages taken and not yet trained on, in the one order."""
    quality: QualityState
    newest: tuple[Example, ...] = ()
    """The newest pages trained on, of a model that infers levels."""


class Checkpoint(NamedTuple):
    """What `read` gives back of what `write` was given."""

    progress: Progress
    tensors: dict[str, Tensor]


_encode = msgspec.msgpack.Encoder().encode
_encode_json = msgspec.json.Encoder().encode
_decode_progress = msgspec.msgpack.Decoder(Progress).decode
_decode_header = msgspec.json.Decoder(Header).decode


def write(folder: Path, config: TrainerConfig, progress: Progress, tensors: dict[str, Tensor]) -> None:
    """Write a checkpoint into an empty folder; to sync it and to rename it into place is the caller's.

    tensors: on the CPU, contiguous.
    """
    files = {TENSORS: save_tensors(tensors), PROGRESS: _encode(progress)}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    header = Header(
        format=FORMAT,
        config=_settings(config),
        sha256={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    )
    (folder / HEADER).write_bytes(msgspec.json.format(_encode_json(header), indent=2))


def read(folder: Path, config: TrainerConfig) -> Checkpoint:
    """Read what `write` wrote.

    CheckpointError: a file is missing or damaged, the format is another, or the checkpoint was written under
    another configuration (the message names each setting that differs).
    """
    header = _header(folder)
    _refuse_differences(folder, header, config)
    files = {}
    for name in (TENSORS, PROGRESS):
        content = _content(folder / name)
        if hashlib.sha256(content).hexdigest() != header.sha256.get(name):
            raise CheckpointError(f"{folder / name} is damaged: its SHA-256 is not the one in {HEADER}; {_NEXT}")
        files[name] = content
    try:
        return Checkpoint(_decode_progress(files[PROGRESS]), load_tensors(files[TENSORS]))
    except (msgspec.DecodeError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {folder} cannot be decoded: {error}; {_NEXT}") from error


def read_config(folder: Path) -> TrainerConfig:
    """The configuration that a checkpoint was written under; CheckpointError as for `read`."""
    header = _header(folder)
    try:
        return msgspec.json.decode(_encode_json(header.config), type=TrainerConfig)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{folder / HEADER} holds a configuration that is not known: {error}; {_NEXT}") from error


_NEXT: Final = "take an older checkpoint, or start over in an empty --run-dir"


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; {_NEXT}") from error


def _header(folder: Path) -> Header:
    path = folder / HEADER
    try:
        header = _decode_header(_content(path))
    except msgspec.DecodeError as error:
        raise CheckpointError(f"{path} is damaged: {error}; {_NEXT}") from error
    if header.format != FORMAT:
        raise CheckpointError(
            f"{path} is of format {header.format}, this program reads format {FORMAT}: "
            "use the release that wrote it, or start over in an empty --run-dir"
        )
    return header


def _settings(config: TrainerConfig) -> dict[str, Setting]:
    """The configuration as it reads when it comes back from JSON."""
    return msgspec.json.decode(_encode_json(dataclasses.asdict(config)), type=dict[str, Setting])


def _refuse_differences(folder: Path, header: Header, config: TrainerConfig) -> None:
    now, then = _settings(config), header.config
    different = [
        f"{name} is {now.get(name, 'not known')!r} and was {then.get(name, 'not set')!r}"
        for name in sorted(now.keys() | then.keys())
        if name not in _NOT_IDENTITY and now.get(name) != then.get(name)
    ]
    if different:
        raise CheckpointError(
            f"checkpoint {folder} was written under another configuration: {'; '.join(different)}. "
            "Set it back, or start over in an empty --run-dir"
        )
