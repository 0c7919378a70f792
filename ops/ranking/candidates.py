"""Reads candidates to rank from a file: JSON Lines or CSV, one item per line."""

import csv
import io
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from prectr.ops.ranking.features import CSV_PREFIX, feature_value
from prectr.state.errors import InputError
from prectr.stream.events.contract import MAX_ID_BYTES, Item

STANDARD_INPUT: Final = Path("-")
_NUMBERS: Final = ("price", "relevance")
_FIELDS: Final = ("item_id", "title", "category", "brand", *_NUMBERS)
_BOM: Final = "\ufeff"

_decode = msgspec.json.Decoder(Item).decode


def read_candidates(path: Path) -> list[Item]:
    """Read the candidates of a file, in order, without their positions.

    The suffix .csv means CSV; .jsonl, .ndjson and .json mean JSON Lines; otherwise the first character decides. Fields
    are those of an item of the log; others are ignored. An empty CSV cell is a missing field. A CSV column
    `features.NAME` is the custom feature NAME: a number where the cell is one, else a string.

    Args:
        path: `-` reads standard input.

    Raises:
        InputError: the file cannot be read, a line is invalid or a duplicate, or there are no candidates.
    """
    name = "standard input" if path == STANDARD_INPUT else str(path)
    text = _read_text(path, name)
    lines = _read_csv(text, name) if _is_csv(path, text) else _read_json_lines(text, name)
    items = check_candidates(((f"line {number}", item) for number, item in lines), name)
    if not items:
        raise InputError(f"{name}: no candidates: expected one item per line, as JSON or as CSV with a header")
    return items


def check_candidates(items: Iterable[tuple[str, Item]], source: str) -> list[Item]:
    """Return candidates without the positions they were given.

    items: each after its place in `source`, both of which errors name.
    Raises InputError where an item_id is too long or occurs twice.
    """
    checked: list[Item] = []
    places: dict[str, str] = {}
    for place, item in items:
        if (size := len(item.item_id.encode())) > MAX_ID_BYTES:
            raise InputError(f"{source}: {place}: item_id has {size} bytes, of at most {MAX_ID_BYTES}")
        first = places.setdefault(item.item_id, place)
        if first != place:
            raise InputError(f"{source}: {place}: item {item.item_id!r} is already on {first}")
        checked.append(msgspec.structs.replace(item, position=None))
    return checked


def _read_text(path: Path, name: str) -> str:
    try:
        content = sys.stdin.buffer.read() if path == STANDARD_INPUT else path.read_bytes()
        return content.decode().removeprefix(_BOM)
    except OSError as error:
        raise InputError(f"{name}: the candidates cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise _invalid(name, line, f"byte {error.start} is not UTF-8: {error.reason}") from error


def _is_csv(path: Path, text: str) -> bool:
    suffix = path.suffix.lower()
    return suffix == ".csv" or (
        suffix not in {".jsonl", ".ndjson", ".json"} and not text.lstrip().startswith(("{", "["))
    )


def _read_json_lines(text: str, name: str) -> Iterator[tuple[int, Item]]:
    # Not splitlines: a title may contain characters that it treats as line breaks.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, _decode(line)
        except msgspec.ValidationError as error:
            raise _invalid(name, number, str(error)) from error
        except msgspec.DecodeError as error:
            hint = " (JSON has no NaN: omit the field)" if "NaN" in line or "Infinity" in line else ""
            raise _invalid(name, number, f"{error}{hint}") from error
        except RecursionError as error:
            raise _invalid(name, number, "arrays and objects are nested too deeply") from error


def _read_csv(text: str, name: str) -> Iterator[tuple[int, Item]]:
    # Rows may end in a carriage return alone.
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            if header is None:
                header = [cell.strip() for cell in row]
                if "item_id" not in header:
                    raise InputError(
                        f"{name}: the first line has no column item_id, but {', '.join(header)[:200]}: a CSV file "
                        f"needs a header with item_id and any of {', '.join(_FIELDS[1:])}"
                    )
                continue
            if len(row) > len(header):
                problem = f"{len(row)} cells for {len(header)} columns: quote cells that contain commas"
                raise _invalid(name, rows.line_num, problem)
            cells: dict[str, object] = {
                field: cell.strip() if field in _NUMBERS else cell
                for field, cell in zip(header, row, strict=False)
                if field in _FIELDS and cell.strip()
            }
            if features := _features(header, row):
                cells["features"] = features
            try:
                yield rows.line_num, msgspec.convert(cells, Item, strict=False)
            except msgspec.ValidationError as error:
                raise _invalid(name, rows.line_num, f"{error}; the row has {cells!r:.200}") from error
    except csv.Error as error:
        raise _invalid(name, rows.line_num, f"not valid CSV: {error}") from error


def _features(header: list[str], row: list[str]) -> dict[str, float | str]:
    return {
        field.removeprefix(CSV_PREFIX): feature_value(cell)
        for field, cell in zip(header, row, strict=False)
        if field.startswith(CSV_PREFIX) and cell.strip()
    }


def _invalid(name: str, line: int, problem: str) -> InputError:
    return InputError(f"{name}: line {line}: {problem}")
