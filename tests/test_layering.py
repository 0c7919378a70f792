"""Rules of the layout: which package may import which, and how large folders and functions may be."""

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
FOLDERS = ("state", "stream", "model", "ops", "bench", "testkit", "tests", "prectr")
LAYERS = ("state", "stream", "model", "ops")
"""Bottom to top: a layer imports itself and the ones below."""
COMMANDS = ("ops/commands/", "bench/stream/benchmark.py")
"""Functions of commands declare an option per parameter, so their size is not limited."""
MAX_FILES = 15
MAX_LINES = 60
MAX_PARAMETERS = 8


class Import(NamedTuple):
    """A name that a file imports; without `name` the module itself."""

    file: str
    line: int
    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}{'.' + self.name if self.name else ''}"


@cache
def sources() -> dict[str, ast.Module]:
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if not is_linked(path)]
    return {str(path.relative_to(ROOT)): ast.parse(path.read_bytes()) for path in sorted(paths)}


def is_linked(path: Path) -> bool:
    """Whether a path leads through one of the links in `prectr/`, and so to a file that has another path as well."""
    return path.resolve() != path


@cache
def imports() -> tuple[Import, ...]:
    return tuple(
        found for file, tree in sources().items() for node in ast.walk(tree) for found in imports_of(file, node)
    )


def imports_of(file: str, node: ast.AST) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(file, node.lineno, alias.name, "")
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{file}:{node.lineno}: a relative import"
        for alias in node.names:
            yield Import(file, node.lineno, node.module or "", alias.name)


def is_within(imported: Import, package: str) -> bool:
    full_name = f"{imported.module}.{imported.name}" if imported.name else imported.module
    return f"{full_name}.".startswith(f"{package}.")


def layer_of(imported: Import) -> str | None:
    return next((layer for layer in LAYERS if is_within(imported, f"prectr.{layer}")), None)


def described(violations: Iterator[Import]) -> list[str]:
    return [str(violation) for violation in violations]


def test_sources_are_found() -> None:
    assert {file.split("/")[0] for file in sources()} >= {
        "state",
        "stream",
        "model",
        "ops",
        "bench",
        "testkit",
        "tests",
    }
    assert len(imports()) > 1000


def test_a_layer_imports_only_itself_and_the_layers_below() -> None:
    def violations() -> Iterator[Import]:
        for imported in imports():
            own, other = imported.file.split("/")[0], layer_of(imported)
            if own in LAYERS and other is not None and LAYERS.index(other) > LAYERS.index(own):
                yield imported

    assert described(violations()) == []


def test_only_the_kafka_package_of_stream_imports_it() -> None:
    outside = (each for each in imports() if each.file.startswith("stream/") and "stream/kafka/" not in each.file)
    assert described(each for each in outside if is_within(each, "prectr.stream.kafka")) == []


def test_the_program_imports_neither_tests_nor_benchmarks() -> None:
    program = (each for each in imports() if each.file.split("/")[0] in (*LAYERS, "prectr"))
    assert described(each for each in program if each.module.split(".")[0] in ("tests", "bench", "testkit")) == []


def test_benchmarks_and_tests_do_not_import_each_other_except_the_tests_of_benchmarks() -> None:
    def violations() -> Iterator[Import]:
        for imported in imports():
            own, other = imported.file.split("/")[0], imported.module.split(".")[0]
            is_wrong = (own in ("bench", "testkit") and other == "tests") or (
                own in ("tests", "testkit")
                and other == "bench"
                and not imported.file.startswith(("tests/bench/", "tests/kafka/bench/"))
            )
            if is_wrong:
                yield imported

    assert described(violations()) == []


def test_no_private_name_is_imported_from_another_package() -> None:
    def violations() -> Iterator[Import]:
        for imported in imports():
            own_package = ".".join(Path(imported.file).parent.parts)
            other_package = imported.module.rpartition(".")[0].removeprefix("prectr.")
            if imported.name.startswith("_") and not imported.name.startswith("__") and other_package != own_package:
                yield imported

    assert described(violations()) == []


def test_no_folder_has_more_than_fifteen_files_of_code() -> None:
    counts = Counter(str(Path(file).parent) for file in sources())
    assert {folder: count for folder, count in counts.items() if count > MAX_FILES} == {}


def test_no_function_is_longer_than_sixty_lines_or_has_more_than_eight_parameters() -> None:
    too_large = []
    for file, tree in sources().items():
        if file.startswith(COMMANDS):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                parameters = len(names) - (names[:1] in (["self"], ["cls"]))
                if lines > MAX_LINES or parameters > MAX_PARAMETERS:
                    too_large.append(f"{file}:{node.lineno} {node.name}: {lines} lines, {parameters} parameters")
    assert too_large == []
