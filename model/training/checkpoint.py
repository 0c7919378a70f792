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
from prectr.model.quality.counterfactual.reranking import RerankingState
from prectr.model.quality.quality import QualityState
from prectr.model.quality.query_losses import QueryLoss
from prectr.model.quality.resamples import ResamplesState
from prectr.model.training.checkpoint_files import (
    FORMAT,
    HEADER,
    PROGRESS,
    REMEDIES,
    TENSORS,
    CheckpointHeader,
    SettingValue,
    encode_header,
    read_files,
    read_header,
)
from prectr.model.training.permutation_importance import PermutationImportanceState
from prectr.state.errors import CheckpointError, Remedy
from prectr.state.identity import config_diff
from prectr.state.private_files import write_private_file
from prectr.stream.records import Example

_IGNORED_SETTINGS: Final = frozenset({"device"})
"""Settings that may differ from the checkpoint's: a model trained on a GPU can be scored anywhere."""


Count = Annotated[int, msgspec.Meta(ge=0)]


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
    write_private_file(folder / HEADER, encode_header(header))


def read(folder: Path, config: TrainerConfig) -> TrainerCheckpoint:
    """Read what `write` wrote.

    Raises:
        CheckpointError: a file is missing or corrupt, a tensor is not finite, the format is unknown, or the checkpoint
            was written with other settings (the message names each that differs).
    """
    header = read_header(folder)
    _check_config(folder, header, config)
    files = read_files(folder, header)
    try:
        saved = TrainerCheckpoint(_decode_progress(files[PROGRESS]), load_tensors(files[TENSORS]))
    except (msgspec.DecodeError, SafetensorError, RecursionError, KeyError) as error:
        raise CheckpointError(f"checkpoint {folder} cannot be decoded ({error})", *REMEDIES) from error
    found = first_not_finite(saved.tensors)
    if found is not None:
        raise CheckpointError(f"{folder / TENSORS}: {found[0]} holds {found[1]}", *REMEDIES)
    return saved


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
