import subprocess
import sys

import pytest
import torch

from prectr.model.models.registry import MODELS, make_model
from prectr.state.errors import ConfigError
from tests.kit.models.examples import small_config


def test_the_baselines_are_registered() -> None:
    assert {"lr", "dnn", "wide-deep", "wide-deep+"} <= set(MODELS)


def test_an_unknown_model_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'deepfm'.*wide-deep"):
        make_model(small_config(model="deepfm"), torch.device("cpu"))


def test_a_switch_that_a_model_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="lr has no component 'debias'"):
        make_model(small_config(model="lr", without=["debias"]), torch.device("cpu"))


@pytest.mark.parametrize("name", ["lr", "wide-deep+"])
def test_a_trainer_of_a_model_without_text_loads_neither_transformers_nor_a_compiler(name: str) -> None:
    """They take longer to import than all the rest, at every start and takeover."""
    code = (
        "import sys; from prectr.model.training.trainer import Trainer; "
        "from tests.kit.models.examples import random_examples, small_config; "
        f"Trainer(small_config(model={name!r})).consume(random_examples(40, seed=0), 0); "
        "print(sorted({'transformers', 'torch._dynamo', 'torch._inductor'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout == "[]\n", done.stderr
