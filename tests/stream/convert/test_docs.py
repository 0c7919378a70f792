"""The examples of docs/convert.md do what the page says."""

import json
import re
from pathlib import Path

import jmespath.functions

from prectr.stream.convert.mapping import load_mapping
from tests.stream.convert.conversion import converted, skipped

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "convert.md").read_text(encoding="utf-8")


def test_the_example_gives_the_events_shown(tmp_path: Path) -> None:
    files = re.findall(r"^`([\w.]+)`:\n\n```\w+\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
    assert [name for name, _ in files] == ["searches.csv", "items.csv", "searches.toml"]
    for name, content in files:
        (tmp_path / name).write_text(content, encoding="utf-8")
    [shown] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    events, report = converted(tmp_path, str(tmp_path / "searches.toml"), [tmp_path / "searches.csv"])
    assert events == [json.loads(line) for line in shown.splitlines()]
    assert skipped(report) == {"item_not_in_catalogue": 1}


def test_every_mapping_shown_is_valid(tmp_path: Path) -> None:
    mappings = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert len(mappings) == 2
    for mapping in mappings:
        (tmp_path / "m.toml").write_text(mapping, encoding="utf-8")
        assert load_mapping(tmp_path / "m.toml").page is not None


def test_every_function_and_reason_is_described() -> None:
    code = "".join(path.read_text() for path in Path(load_mapping.__code__.co_filename).parent.glob("*.py"))
    functions = set(re.findall(r"def _func_(\w+)", code))
    assert functions == {"at", "split", "parse_json", "times"}
    assert functions.isdisjoint(jmespath.functions.Functions.FUNCTION_TABLE)
    reasons = set(re.findall(r'(?:Unmappable|skip)\(\s*"(\w+)"', code))
    assert len(reasons) > 20
    for name in reasons | functions:
        assert f"`{name}" in PAGE or name.startswith(("missing_", "invalid_")), name
