"""A trainer's checkpoint: tensors as safetensors, progress as msgpack, and a header with the digests of both."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from prectr.model.config import TrainerConfig
from prectr.model.features.feature_slots import FeatureSlotsState
from prectr.model.layers.finiteness import first_not_finite
from prectr.model.layers.memory import read_file
from prectr.model.quality.counterfactual.reranking import RerankingState
from prectr.model.quality.quality import QualityState
from prectr.model.quality.query_losses import QueryLoss
from prectr.model.quality.resamples import ResamplesState
from prectr.model.training.permutation_importance import PermutationImportanceState
from prectr.state.encoding import DAMAGE
from prectr.state.errors import CheckpointError, Remedy
from prectr.state.identity import config_diff
from prectr.state.private_files import write_private_file
from prectr.state.system_limits import limit_advice
from prectr.stream.records import Example

FORMAT: Final = 1
_REMEDIES: Final = (Remedy.OLDER_CHECKPOINT, Remedy.EMPTY_RUN_DIR)
HEADER: Final = "trainer.json"
TENSORS: Final = "trainer.safetensors"
PROGRESS: Final = "trainer.msgpack"

_IGNORED_SETTINGS: Final = frozenset({"device"})
"""Settings that may differ from the checkpoint's: a model trained on a GPU can be scored anywhere."""


SettingValue = str | int | float | bool | list[str | int | float]
"""The value of a setting, as decoded from JSON."""


Count = Annotated[int, msgspec.Meta(ge=0)]


class CheckpointHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The header of a checkpoint; readable without torch."""

    format: int
    config: dict[str, SettingValue]
    sha256: dict[str, str]
    """SHA-256 of each other file, by name."""


class TrainerProgress(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a trainer besides its tensors."""

    batches: Count
    pages_trained: Count
    open_batch: tuple[Example, ...]
    """Pages consumed and not yet trained on, in the total order."""
    quality: QualityState
    resamples: ResamplesState
    query_losses: dict[str, QueryLoss]
    reranking: RerankingState
    features: FeatureSlotsState
    permutation_importance: PermutationImportanceState
    newest: tuple[Example, ...] = ()
    """The newest pages trained on; empty for models that do not infer levels."""


class TrainerCheckpoint(NamedTuple):
    """The content of a checkpoint."""

    progress: TrainerProgress
    tensors: dict[str, Tensor]


_encode = msgspec.msgpack.Encoder().encode
_encode_json = msgspec.json.Encoder().encode
_decode_progress = msgspec.msgpack.Decoder(TrainerProgress).decode
_decode_header = msgspec.json.Decoder(CheckpointHeader).decode


def write(folder: Path, config: TrainerConfig, progress: TrainerProgress, tensors: dict[str, Tensor]) -> None:
    """Write a checkpoint into an empty folder, which the caller syncs and renames into place.

    tensors: on the CPU, contiguous.
    """
    files = {TENSORS: save_tensors(tensors), PROGRESS: _encode(progress)}
    for name, content in files.items():
        write_private_file(folder / name, content)
    header = CheckpointHeader(
        format=FORMAT,
        config=_settings(config),
        sha256={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    )
    write_private_file(folder / HEADER, msgspec.json.format(_encode_json(header), indent=2))


def read(folder: Path, config: TrainerConfig) -> TrainerCheckpoint:
    """Read what `write` wrote.

    Raises:
        CheckpointError: a file is missing or corrupt, a tensor is not finite, the format is unknown, or the checkpoint
            was written with other settings (the message names each that differs).
    """
    header = _read_header(folder)
    _check_config(folder, header, config)
    files = {}
    for name in (TENSORS, PROGRESS):
        content = _read_file(folder / name)
        if hashlib.sha256(content).hexdigest() != header.sha256.get(name):
            raise CheckpointError(f"{folder / name} is corrupt, its SHA-256 is not the one in {HEADER}", *_REMEDIES)
        files[name] = content
    try:
        saved = TrainerCheckpoint(_decode_progress(files[PROGRESS]), load_tensors(files[TENSORS]))
    except (msgspec.DecodeError, SafetensorError, RecursionError, KeyError) as error:
        raise CheckpointError(f"checkpoint {folder} cannot be decoded ({error})", *_REMEDIES) from error
    found = first_not_finite(saved.tensors)
    if found is not None:
        raise CheckpointError(f"{folder / TENSORS}: {found[0]} holds {found[1]}", *_REMEDIES)
    return saved


def read_config(folder: Path) -> TrainerConfig:
    """Read the configuration that a checkpoint was written with; CheckpointError as of `read`."""
    header = _read_header(folder)
    try:
        return msgspec.json.decode(_encode_json(header.config), type=TrainerConfig)
    except DAMAGE as error:
        raise CheckpointError(f"{folder / HEADER} holds an unknown configuration ({error})", *_REMEDIES) from error


def _read_file(path: Path) -> bytes:
    try:
        return read_file(path)
    except PermissionError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from error
    except OSError as error:
        if limit := limit_advice(error):
            raise CheckpointError(f"{path} cannot be read ({error.strerror}): {limit}") from error
        raise CheckpointError(f"{path} cannot be read ({error.strerror})", *_REMEDIES) from error


def _read_header(folder: Path) -> CheckpointHeader:
    path = folder / HEADER
    try:
        header = _decode_header(_read_file(path))
    except (msgspec.DecodeError, RecursionError) as error:
        raise CheckpointError(f"{path} is corrupt ({error})", *_REMEDIES) from error
    if header.format != FORMAT:
        raise CheckpointError(
            f"{path} has format {header.format}, this program reads format {FORMAT}",
            Remedy.RELEASE_THAT_WROTE,
            Remedy.EMPTY_RUN_DIR,
        )
    return header


def _settings(config: TrainerConfig) -> dict[str, SettingValue]:
    """The configuration after a round trip through JSON."""
    return msgspec.json.decode(_encode_json(dataclasses.asdict(config)), type=dict[str, SettingValue])


def _identifying(settings: dict[str, SettingValue]) -> dict[str, SettingValue]:
    """The settings that must be the same for a checkpoint to be resumed."""
    return {name: value for name, value in settings.items() if name not in _IGNORED_SETTINGS}


def _check_config(folder: Path, header: CheckpointHeader, config: TrainerConfig) -> None:
    different = config_diff(_identifying(_settings(config)), _identifying(header.config))
    if different:
        raise CheckpointError(
            f"checkpoint {folder} was written with other settings: {different}",
            Remedy.SAME_SETTINGS,
            Remedy.EMPTY_RUN_DIR,
        )
