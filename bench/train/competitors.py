"""Vowpal Wabbit and River on the features of `lr`, if installed: test, then train, example by example."""

import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from prectr.stream.records import Example, decode_page

LabelledFeatures = tuple[dict[str, float], int]


def competitor_speeds(warm_up: Sequence[Example], timed: Sequence[Example]) -> dict[str, float]:
    """Impressions per second of each installed package, by name and version."""
    warm_up_impressions, measured = list(_labelled_features(warm_up)), list(_labelled_features(timed))
    found = {}
    for package, make in _MAKE_LEARNER.items():
        try:
            module = importlib.import_module(package)
        except ImportError:
            continue
        learn = make()
        for features, label in warm_up_impressions:
            learn(features, label)
        start = time.perf_counter()
        for features, label in measured:
            learn(features, label)
        found[f"{package} {module.__version__}"] = len(measured) / (time.perf_counter() - start)
    return found


def _labelled_features(examples: Sequence[Example]) -> Iterator[LabelledFeatures]:
    """Position, level, user, query and item of each impression, the features of `lr`, and its click."""
    for example in examples:
        for item, level, label in zip(decode_page(example.page).items, example.levels, example.labels, strict=True):
            named = (
                f"position={item.position}",
                f"level={level}",
                f"user={example.user_id}",
                f"query={example.query}",
                f"item={item.item_id}",
            )
            yield dict.fromkeys(named, 1.0), label


def _river() -> Callable[[dict[str, float], int], object]:
    linear = importlib.import_module("river.linear_model")
    optim = importlib.import_module("river.optim")
    model = linear.LogisticRegression(optim.FTRLProximal(alpha=0.3, beta=5.0))

    def learn(features: dict[str, float], label: int) -> object:
        score = model.predict_proba_one(features)
        model.learn_one(features, bool(label))
        return score

    return learn


def _vowpal_wabbit() -> Callable[[dict[str, float], int], object]:
    workspace: Any = importlib.import_module("vowpalwabbit").Workspace(
        "--loss_function logistic --link logistic --ftrl --ftrl_alpha 0.3 --ftrl_beta 5 -b 18 --quiet"
    )

    def learn(features: dict[str, float], label: int) -> object:
        # Spaces, colons and bars have a meaning in its input format.
        names = " ".join(name.replace(" ", "_").replace(":", "_").replace("|", "_") for name in features)
        example = workspace.example(f"{1 if label else -1} | {names}")
        score = workspace.predict(example)
        workspace.learn(example)
        workspace.finish_example(example)
        return score

    return learn


_MAKE_LEARNER: Final[dict[str, Callable[[], Callable[[dict[str, float], int], object]]]] = {
    "river": _river,
    "vowpalwabbit": _vowpal_wabbit,
}
