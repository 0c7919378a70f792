"""Candidates to be ranked, from a file: JSON Lines or CSV, one item a line."""

import csv
import io
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from prectr.state.errors import InputError
from prectr.stream.events.contract import MAX_ID_BYTES, Item

STANDARD_INPUT: Final = Path("-")
_NUMBERS: Final = ("price", "relevance")
_FIELDS: Final = ("item_id", "title", "category", "brand", *_NUMBERS)
_BOM: Final = "\ufeff"

_decode = msgspec.json.Decoder(Item).decode


def read_candidates(path: Path) -> list[Item]:
    """The candidates in `path` (`-`: standard input), in their order; where each stands there is not kept.

    A name that ends in .csv is CSV, one in .jsonl, .ndjson or .json JSON Lines; any other is what it begins like.
    Fields are those of an item of the log; others are ignored. An empty cell of CSV is a field left out.

    Raises:
        InputError: it cannot be read, a line is no item or one that stood there before, or there are none.
    """
    name = "standard input" if path == STANDARD_INPUT else str(path)
    text = _read_text(path, name)
    lines = _read_csv(text, name) if _is_csv(path, text) else _read_json_lines(text, name)
    items = check_candidates(((f"line {number}", item) for number, item in lines), name)
    if not items:
        raise InputError(f"{name}: there are no candidates in it: give one item a line, as JSON or under a CSV header")
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
            raise InputError(
                f"{source}: {place}: item {item.item_id!r} is on {first} already: name each candidate once"
            )
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
    # Not splitlines: a title may hold characters that it takes for line ends.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, _decode(line)
        except msgspec.ValidationError as error:
            raise _invalid(name, number, str(error)) from error
        except msgspec.DecodeError as error:
            hint = " (JSON has no NaN: leave the field out)" if "NaN" in line or "Infinity" in line else ""
            raise _invalid(name, number, f"{error}{hint}") from error
        except RecursionError as error:
            raise _invalid(name, number, "arrays and objects are nested too deep") from error


def _read_csv(text: str, name: str) -> Iterator[tuple[int, Item]]:
    # The last line end of a row may be a return alone.
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
                        f"{name}: its first line names no column item_id, but {', '.join(header)[:200]}: a CSV file "
                        f"begins with a header of {', '.join(_FIELDS)}, of which only item_id must be there"
                    )
                continue
            if len(row) > len(header):
                what = f"{len(row)} cells under {len(header)} columns: quote cells that hold commas"
                raise _invalid(name, rows.line_num, what)
            cells = {
                field: cell.strip() if field in _NUMBERS else cell
                for field, cell in zip(header, row, strict=False)
                if field in _FIELDS and cell.strip()
            }
            try:
                yield rows.line_num, msgspec.convert(cells, Item, strict=False)
            except msgspec.ValidationError as error:
                raise _invalid(name, rows.line_num, f"{error}; the row has {cells!r:.200}") from error
    except csv.Error as error:
        raise _invalid(name, rows.line_num, f"it is no CSV: {error}") from error


def _invalid(name: str, line: int, what: str) -> InputError:
    return InputError(f"{name}: line {line}: {what}")
