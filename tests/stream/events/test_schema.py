"""The JSON Schema: it agrees with the decoder's contract, and the shipped file is up to date."""

import json
from pathlib import Path
from typing import Any

from prectr.stream.events.contract import Click, Item, ResultPage
from prectr.stream.events.schema import event_schema, event_schema_text

SHIPPED = Path(__file__).parents[3] / "docs" / "search-events.schema.json"


def test_the_shipped_file_is_up_to_date() -> None:
    assert SHIPPED.read_text() == event_schema_text(), "run: prectr schema --out docs/search-events.schema.json"


def test_the_schema_agrees_with_the_contract() -> None:
    schema: dict[str, Any] = json.loads(event_schema_text())
    assert schema == json.loads(json.dumps(event_schema()))
    parts = schema["$defs"]
    page, click, item = parts["ResultPage"], parts["Click"], parts["Item"]
    assert set(page["properties"]) == {"type", *ResultPage.__struct_fields__}
    assert set(click["properties"]) == {"type", *Click.__struct_fields__}
    assert set(item["properties"]) == set(Item.__struct_fields__)
    assert sorted(page["required"]) == ["items", "query", "request_id", "ts", "type", "user_id"]
    assert sorted(click["required"]) == ["item_id", "request_id", "ts", "type", "user_id"]
    assert item["required"] == ["item_id"]
    assert (page["properties"]["items"]["minItems"], page["properties"]["items"]["maxItems"]) == (1, 200)
    assert page["properties"]["type"] == {"enum": ["impression"]}
    assert "256 bytes" in click["properties"]["user_id"]["description"]
    level = item["properties"]["relevance"]["anyOf"][0]
    assert (level["minimum"], level["maximum"]) == (1, 4)
