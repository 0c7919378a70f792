"""The files of a trainer's checkpoint and the header with their digests: what can be checked without torch.

Importing torch takes seconds, on a busy machine ten: more than whoever asks in an outage will wait.
"""

import hashlib
from pathlib import Path
from typing import Final

import msgspec

from prectr.model.config import TrainerConfig
from prectr.model.layers.memory import read_file
from prectr.state.encoding import DAMAGE
from prectr.state.errors import CheckpointError, Remedy
from prectr.state.system_limits import limit_advice

FORMAT: Final = 1
REMEDIES: Final = (Remedy.OLDER_CHECKPOINT, Remedy.EMPTY_RUN_DIR)
HEADER: Final = "trainer.json"
TENSORS: Final = "trainer.safetensors"
PROGRESS: Final = "trainer.msgpack"

SettingValue = str | int | float | bool | list[str | int | float]
"""The value of a setting, as decoded from JSON."""


class CheckpointHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The header of a checkpoint."""

    format: int
    config: dict[str, SettingValue]
    sha256: dict[str, str]
    """SHA-256 of each other file, by name."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(CheckpointHeader).decode


def encode_header(header: CheckpointHeader) -> bytes:
    """Encode a header as indented JSON."""
    return msgspec.json.format(_encode(header), indent=2)


def read_header(folder: Path) -> CheckpointHeader:
    """Read the header of the checkpoint in `folder`; raises CheckpointError if it is corrupt or of another format."""
    path = folder / HEADER
    try:
        header = _decode(_read_file(path))
    except (msgspec.DecodeError, RecursionError) as error:
        raise CheckpointError(f"{path} is corrupt ({error})", *REMEDIES) from error
    if header.format != FORMAT:
        raise CheckpointError(
            f"{path} has format {header.format}, this program reads format {FORMAT}",
            Remedy.RELEASE_THAT_WROTE,
            Remedy.EMPTY_RUN_DIR,
        )
    return header


def read_config(folder: Path) -> TrainerConfig:
    """Read the configuration that a checkpoint was written with; CheckpointError as of `read_header`."""
    header = read_header(folder)
    try:
        return msgspec.json.decode(_encode(header.config), type=TrainerConfig)
    except DAMAGE as error:
        raise CheckpointError(f"{folder / HEADER} holds an unknown configuration ({error})", *REMEDIES) from error


def read_files(folder: Path, header: CheckpointHeader) -> dict[str, bytes]:
    """Read the other files, by name.

    Raises:
        CheckpointError: a file is missing, or is not what was written.
    """
    files = {}
    for name in (TENSORS, PROGRESS):
        content = _read_file(folder / name)
        if hashlib.sha256(content).hexdigest() != header.sha256.get(name):
            raise CheckpointError(f"{folder / name} is corrupt, its SHA-256 is not the one in {HEADER}", *REMEDIES)
        files[name] = content
    return files


def _read_file(path: Path) -> bytes:
    try:
        return read_file(path)
    except PermissionError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from error
    except OSError as error:
        if limit := limit_advice(error):
            raise CheckpointError(f"{path} cannot be read ({error.strerror}): {limit}") from error
        raise CheckpointError(f"{path} cannot be read ({error.strerror})", *REMEDIES) from error
