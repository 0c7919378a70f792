"""Teachers and their labels: what each kind answers, and that labels are kept, resumed, and vouched for."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from prectr.model.text.encoder.tokens import Pair
from prectr.model.text.teacher import labels as labels_module
from prectr.model.text.teacher.labels import read_labels, read_manifest, texts_of, write_labels
from prectr.model.text.teacher.sentence_encoder import SentenceEncoder
from prectr.model.text.teacher.teacher import (
    CausalTeacher,
    ClassifierTeacher,
    Teacher,
    level_interpolation,
    open_teacher,
)
from prectr.ops.cli.main import app
from prectr.state.errors import InputError, UsageError
from tests.kit.models.teachers import PAIRS, save_classifier, save_language_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("teachers") / "four", outputs=4)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("teachers") / "causal")


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (2, [[1, 0, 0, 0], [0, 0, 0, 1]]),
        (3, [[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1]]),
        (4, np.eye(4)),
        (5, [[1, 0, 0, 0], [0.25, 0.75, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0.75, 0.25], [0, 0, 0, 1]]),
    ],
)
def test_outputs_are_spread_evenly_over_the_levels(outputs: int, expected: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(level_interpolation(outputs), expected)


def test_four_outputs_are_the_levels(four: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    found = ClassifierTeacher(four, CPU).log_levels(PAIRS[:1])
    tokens = AutoTokenizer.from_pretrained(four)(*PAIRS[0], return_tensors="pt")
    logits = AutoModelForSequenceClassification.from_pretrained(four)(**tokens).logits
    np.testing.assert_allclose(np.exp(found), torch.softmax(logits, dim=1).detach().numpy(), atol=1e-5)


def test_one_output_is_the_logit_of_level_4_against_1(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = save_classifier(tmp_path / "one", outputs=1)
    levels = np.exp(ClassifierTeacher(folder, CPU).log_levels(PAIRS[:1]))[0]
    tokens = AutoTokenizer.from_pretrained(folder)(*PAIRS[0], return_tensors="pt")
    logit = AutoModelForSequenceClassification.from_pretrained(folder)(**tokens).logits.item()
    assert levels[3] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)
    assert levels[1] == pytest.approx(0, abs=1e-5)
    assert levels.sum() == pytest.approx(1, abs=1e-4)


def test_outputs_can_be_named_in_another_order(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "three", outputs=3)
    plain = np.exp(ClassifierTeacher(folder, CPU).log_levels(PAIRS))
    turned = np.exp(ClassifierTeacher(folder, CPU, order=[2, 1, 0]).log_levels(PAIRS))
    np.testing.assert_allclose(plain, turned[:, ::-1], atol=1e-5)
    with pytest.raises(UsageError, match=r"has 3: name each of 0 to 2"):
        ClassifierTeacher(folder, CPU, order=[0, 1])


def test_a_language_model_answers_with_its_probabilities_of_the_digits(language_model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    teacher = open_teacher(language_model, CPU)
    assert isinstance(teacher, CausalTeacher)
    found = teacher.log_levels(PAIRS)
    tokenizer = AutoTokenizer.from_pretrained(language_model)
    asked = teacher._prompt.replace("{query}", PAIRS[3][0]).replace("{title}", PAIRS[3][1])
    tokens = tokenizer(asked, return_tensors="pt")
    logits = AutoModelForCausalLM.from_pretrained(language_model)(input_ids=tokens["input_ids"]).logits[0, -1]
    digits = logits[[tokenizer.convert_tokens_to_ids(digit) for digit in "1234"]]
    np.testing.assert_allclose(found[3], torch.log_softmax(digits, dim=0).detach().numpy(), atol=1e-4)


def test_a_query_that_looks_like_a_field_of_the_prompt_is_only_a_query(language_model: Path) -> None:
    teacher = CausalTeacher(language_model, CPU, prompt="{query} | {title} :")
    assert teacher._format_prompt("{title}", "hat") == "{title} | hat :"
    assert (
        CausalTeacher(language_model, CPU, prompt="{title} | {query} :")._format_prompt("{title}", "hat")
        == "hat | {title} :"
    )


def test_a_prompt_without_a_field_is_refused(language_model: Path) -> None:
    with pytest.raises(UsageError, match=r"lacks \{title\}"):
        CausalTeacher(language_model, CPU, prompt="how good is {query}?")


def test_a_folder_that_is_no_model_is_reported(tmp_path: Path, four: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        open_teacher(tmp_path / "nowhere", CPU)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"has no config\.json"):
        open_teacher(tmp_path / "empty", CPU)
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="has no weights"):
        open_teacher(tmp_path / "empty", CPU)
    (tmp_path / "empty" / "model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(UsageError, match="is not a model that transformers knows"):
        open_teacher(tmp_path / "empty", CPU)
    (tmp_path / "empty" / "config.json").write_bytes((four / "config.json").read_bytes())
    with pytest.raises(UsageError, match="cannot be opened"):
        open_teacher(tmp_path / "empty", CPU)


def test_an_encoder_without_a_classifier_is_no_teacher(tmp_path: Path, four: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(four).save_pretrained(tmp_path / "headless")
    AutoTokenizer.from_pretrained(four).save_pretrained(tmp_path / "headless")
    with pytest.raises(UsageError, match="fine-tune it first"):
        open_teacher(tmp_path / "headless", CPU)


def test_labels_read_as_the_teacher_says_and_batches_change_nothing(tmp_path: Path, four: Path) -> None:
    teacher = ClassifierTeacher(four, CPU)
    write_labels(tmp_path / "labels", PAIRS, teacher, batch_size=5)
    found = read_labels(tmp_path / "labels", PAIRS)
    np.testing.assert_allclose(found.log_levels, teacher.log_levels(PAIRS), atol=1e-5)
    assert found.manifest.teacher["sha256"] == teacher.identity["sha256"]
    assert found.manifest.teacher["kind"] == "classifier"
    assert found.manifest.pairs == len(PAIRS)


def test_vectors_go_with_the_labels(tmp_path: Path, four: Path) -> None:
    sentences = SentenceEncoder(four, CPU)
    write_labels(tmp_path / "labels", PAIRS, ClassifierTeacher(four, CPU), batch_size=5, sentences=sentences)
    found = read_labels(tmp_path / "labels", PAIRS)
    assert set(found.text_index) == set(texts_of(PAIRS)) >= {"usb cable 2 m", "wool hat", "cotton"}
    texts = list(found.text_index)
    np.testing.assert_allclose(found.vectors, sentences.encode(texts), atol=1e-3)
    assert found.manifest.vectors == sentences.identity


class _Dies:
    """A teacher whose process dies after some batches."""

    def __init__(self, teacher: Teacher, after: int) -> None:
        self._teacher = teacher
        self._left = itertools.count(after, -1)
        self.asked = 0

    @property
    def identity(self) -> dict[str, str]:
        return self._teacher.identity

    def lengths(self, pairs: Sequence[Pair]) -> NDArray[np.int64]:
        return self._teacher.lengths(pairs)

    def log_levels(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        if next(self._left) <= 0:
            raise KeyboardInterrupt
        self.asked += len(pairs)
        return self._teacher.log_levels(pairs)


def test_an_interrupted_run_resumes(tmp_path: Path, four: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "PART_PAIRS", 8)
    teacher = ClassifierTeacher(four, CPU)
    write_labels(tmp_path / "whole", PAIRS, teacher, batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        write_labels(tmp_path / "cut", PAIRS, _Dies(teacher, after=3), batch_size=4)
    with pytest.raises(InputError, match="is incomplete"):
        read_labels(tmp_path / "cut", PAIRS)
    rest = _Dies(teacher, after=99)
    assert write_labels(tmp_path / "cut", PAIRS, rest, batch_size=4) == rest.asked == 16
    whole, cut = read_labels(tmp_path / "whole", PAIRS), read_labels(tmp_path / "cut", PAIRS)
    assert np.array_equal(whole.log_levels, cut.log_levels)
    assert write_labels(tmp_path / "cut", PAIRS, _Dies(teacher, after=0), batch_size=4) == 0


def test_labels_of_other_pairs_or_another_teacher_are_refused(tmp_path: Path, four: Path) -> None:
    folder = tmp_path / "labels"
    write_labels(folder, PAIRS, ClassifierTeacher(four, CPU), batch_size=8)
    with pytest.raises(UsageError, match="labels of 24 other pairs"):
        read_labels(folder, PAIRS[:-1])
    with pytest.raises(UsageError, match="labels of 24 other pairs"):
        read_labels(folder, PAIRS[::-1])
    other = ClassifierTeacher(save_classifier(tmp_path / "other", outputs=4, seed=4), CPU)
    with pytest.raises(UsageError, match=r"other provenance \(teacher differ\)"):
        write_labels(folder, PAIRS, other, batch_size=8)
    with pytest.raises(UsageError, match="holds no labels"):
        read_labels(tmp_path, PAIRS)


def test_corrupt_labels_are_named_and_remade(tmp_path: Path, four: Path) -> None:
    teacher = ClassifierTeacher(four, CPU)
    write_labels(tmp_path, PAIRS, teacher, batch_size=8)
    part = tmp_path / "levels-000000000.safetensors"
    part.write_bytes(part.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"levels-000000000\.safetensors is corrupt"):
        read_labels(tmp_path, PAIRS)
    assert write_labels(tmp_path, PAIRS, teacher, batch_size=8) == len(PAIRS)
    read_labels(tmp_path, PAIRS)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(InputError, match=r"manifest\.json is corrupt"):
        read_manifest(tmp_path)


def test_a_teacher_that_answers_nothing_finite_stops_the_labelling(tmp_path: Path, four: Path) -> None:
    class Broken(ClassifierTeacher):
        def log_levels(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
            found = super().log_levels(pairs)
            found[0] = np.nan
            return found

    with pytest.raises(InputError, match="is not finite"):
        write_labels(tmp_path, PAIRS, Broken(four, CPU), batch_size=8)


def test_the_command_labels_and_says_what_it_did(tmp_path: Path, four: Path) -> None:
    lines = "".join(json.dumps({"query": query, "title": title}) + "\n" for query, title in PAIRS)
    (tmp_path / "pairs.jsonl").write_text(lines)
    arguments = ["label", str(tmp_path / "pairs.jsonl"), "--teacher", str(four), "--out", str(tmp_path / "labels")]
    done = CliRunner().invoke(app, [*arguments, "--device", "cpu", "--json", str(tmp_path / "done.json")])
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "done.json").read_bytes())
    assert (written["pairs"], written["newly_labelled"]) == (24, 24)
    assert read_labels(tmp_path / "labels", PAIRS).log_levels.shape == (24, 4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--teacher", "nowhere"], "nowhere is not a folder"),
        (["--dtype", "int3"], "--dtype is 'int3'"),
        (["--outputs", "best"], "--outputs is 'best'"),
        (["--prompt", "no-such-file"], "the prompt no-such-file cannot be read"),
    ],
)
def test_wrong_use_is_one_clear_line(tmp_path: Path, four: Path, flags: list[str], message: str) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"query": "usb", "title": ""}\n')
    arguments = ["label", str(tmp_path / "pairs.jsonl"), "--teacher", str(four), "--out", str(tmp_path / "labels")]
    done = CliRunner().invoke(app, [*arguments, *flags])
    assert isinstance(done.exception, UsageError | InputError)
    assert message in str(done.exception)
