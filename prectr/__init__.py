"""PRECTR streaming: online learning to rank from a search engine's click log.

>>> import prectr
>>> report = prectr.replay("log.jsonl.gz", "run", model="prectr-v2")
>>> ranking = prectr.Ranker.load("run").rank(query="usb cable", user="u7", candidates=["i1", "i2"])
>>> for example in prectr.read_examples("examples.jsonl.gz"):
...     print(example.query, example.items)

Everything that goes wrong is a `PrectrError`. Names are imported on first use, so `import prectr` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from prectr.api import Ranker, check, replay
    from prectr.ops.ranking.result import Ranking
    from prectr.ops.report import Report
    from prectr.state.errors import (
        BrokerUnavailableError,
        CheckpointError,
        ConfigError,
        InputError,
        PrectrError,
        StateError,
        TrainingError,
        UsageError,
    )
    from prectr.stream.check import CheckReport
    from prectr.stream.events.contract import Item
    from prectr.stream.sinks.example_line import ExampleLine
    from prectr.stream.sinks.written_examples import WrittenExamples, read_examples

__all__ = [
    "BrokerUnavailableError",
    "CheckReport",
    "CheckpointError",
    "ConfigError",
    "ExampleLine",
    "InputError",
    "Item",
    "PrectrError",
    "Ranker",
    "Ranking",
    "Report",
    "StateError",
    "TrainingError",
    "UsageError",
    "WrittenExamples",
    "check",
    "read_examples",
    "replay",
]

_MODULES: Final = {
    "CheckReport": "prectr.stream.check",
    "ExampleLine": "prectr.stream.sinks.example_line",
    "Item": "prectr.stream.events.contract",
    "Ranker": "prectr.api",
    "Ranking": "prectr.ops.ranking.result",
    "Report": "prectr.ops.report",
    "WrittenExamples": "prectr.stream.sinks.written_examples",
    "check": "prectr.api",
    "read_examples": "prectr.stream.sinks.written_examples",
    "replay": "prectr.api",
}
"""Where the public names are defined; the errors are all in `prectr.state.errors`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'prectr' has no attribute {name!r}")
    value = getattr(import_module(_MODULES.get(name, "prectr.state.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
