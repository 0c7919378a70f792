import pytest
import torch

from model.registry import MODELS, make_model
from state.errors import ConfigError
from tests.kit.examples import small_config


def test_the_baselines_are_registered() -> None:
    assert {"lr", "dnn", "wide-deep", "wide-deep+"} <= set(MODELS)


def test_an_unknown_model_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'deepfm'.*wide-deep"):
        make_model(small_config(model="deepfm"), torch.device("cpu"))


def test_a_switch_that_a_model_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="lr has no part 'debias'"):
        make_model(small_config(model="lr", without=["debias"]), torch.device("cpu"))
