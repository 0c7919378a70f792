"""The examples of docs/ingest.md do what the page says."""

import json
import re
from pathlib import Path

from prectr.stream.kafka.ingest import record_mapper
from tests.stream.ingest.records import foreign, mapper

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "ingest.md").read_text(encoding="utf-8")


def test_each_example_gives_the_event_shown(tmp_path: Path) -> None:
    examples = re.findall(r"```json\n(.*?)```\n\n```toml\n(.*?)```\n\n```json\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) == 2
    for record, mapping, event in examples:
        found = mapper(tmp_path, mapping).map(foreign(0, record.strip().encode()))
        assert [json.loads(each.line) for each in found.events] == [json.loads(event)]
        assert (found.rejection, found.left_out) == (None, {})


def test_every_reason_is_described() -> None:
    folder = Path(record_mapper.__file__).parent
    code = "".join(path.read_text() for path in folder.glob("*.py"))
    reasons = set(re.findall(r'Unmappable\(\s*"(\w+)"', code)) | set(re.findall(r'left_out\["(\w+)"\]', code))
    assert reasons == {
        "no_value",
        "not_framed",
        "not_avro",
        "unknown_schema",
        "unsupported_schema",
        "empty_page",
        "not_an_object",
        "too_deep",
    }
    of_convert = (Path(__file__).resolve().parents[3] / "docs" / "convert.md").read_text(encoding="utf-8")
    for reason in reasons:
        assert f"`{reason}`" in PAGE + of_convert, reason
