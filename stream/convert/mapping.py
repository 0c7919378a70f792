"""The mapping of foreign rows to events: a TOML file whose values are JMESPath expressions over one row.

In `[page]`, in `each` and in a `[[click]]` without `each`, expressions see the row itself. In `[page.items]` and in a
`[[click]]` with `each` they see `{"item": element, "index": from 0, "row": the row, "catalogue": row or null}`; in a
page without `each`, the item is the row.
"""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import jmespath
import jmespath.exceptions
import jmespath.functions
import msgspec

from prectr.state.errors import ConfigError
from prectr.stream.convert.outcome import Unmappable
from prectr.stream.convert.rows import Format
from prectr.stream.convert.times import TimeUnit
from prectr.stream.convert.values import parse_json, shown, split_list

Delimiter = Annotated[str, msgspec.Meta(pattern=r'\A[^"\r\n]\Z')]


class InputSection(msgspec.Struct, forbid_unknown_fields=True):
    """How to read the rows. format: by default by the file's name; delimiter: of CSV, by default by the header."""

    format: Format | None = None
    delimiter: Delimiter | None = None


class TimeSection(msgspec.Struct, forbid_unknown_fields=True):
    """How to read times. unit: s, ms, us, ns or auto. zone: of times without one, such as Europe/Berlin."""

    unit: TimeUnit = "auto"
    zone: str | None = None


class ItemsSection(msgspec.Struct, forbid_unknown_fields=True):
    """The items of a page. each: an array of the row; without it the row itself is one item of its page."""

    item_id: str
    each: str | None = None
    title: str | None = None
    relevance: str | None = None
    price: str | None = None
    category: str | None = None
    brand: str | None = None
    position: str | None = None
    features: dict[str, str] = {}


class PageSection(msgspec.Struct, forbid_unknown_fields=True):
    """Result pages. when: rows for which it is not true are no pages."""

    request_id: str
    ts: str
    items: ItemsSection
    user_id: str | None = None
    session_id: str | None = None
    query: str | None = None
    when: str | None = None
    context: dict[str, str] = {}
    features: dict[str, str] = {}


class ClickSection(msgspec.Struct, forbid_unknown_fields=True):
    """Clicks. each: an array of the row, a click for each element for which `when` is true."""

    request_id: str
    item_id: str
    ts: str
    user_id: str | None = None
    session_id: str | None = None
    when: str | None = None
    each: str | None = None
    action: str | None = None


class CatalogueSection(msgspec.Struct, forbid_unknown_fields=True):
    """A file with one row an item, joined to the items of pages. key: a JMESPath expression for the item's id."""

    file: str
    key: str
    format: Format | None = None
    delimiter: Delimiter | None = None


class MappingFile(msgspec.Struct, forbid_unknown_fields=True):
    """The whole file."""

    page: PageSection | None = None
    click: list[ClickSection] = []
    input: InputSection = msgspec.field(default_factory=InputSection)
    time: TimeSection = msgspec.field(default_factory=TimeSection)
    catalogue: CatalogueSection | None = None


class _Functions(jmespath.functions.Functions):  # type: ignore[misc]
    """Functions beside JMESPath's own, for tables: parallel arrays, texts with separators, JSON in cells, units."""

    @jmespath.functions.signature({"types": ["array", "null"]}, {"types": ["number"]})  # type: ignore[untyped-decorator]
    def _func_at(self, array: list[Any] | None, index: float) -> Any:
        """at(array, index): the element of a parallel array, null beyond its end."""
        return array[int(index)] if array is not None and 0 <= index < len(array) else None

    @jmespath.functions.signature({"types": ["string", "null"]}, {"types": ["string"]})  # type: ignore[untyped-decorator]
    def _func_split(self, text: str | None, separator: str) -> list[str]:
        """split(text, separator): the parts of a text, as `split_list` makes them; none of an empty text."""
        return split_list(text, separator) if text is not None else []

    @jmespath.functions.signature({"types": ["string", "null"]})  # type: ignore[untyped-decorator]
    def _func_parse_json(self, text: str | None) -> Any:
        """parse_json(text): the value of a cell with JSON, or with a list or dict as Python writes it."""
        return parse_json(text) if text and text.strip() else None

    @jmespath.functions.signature({"types": ["number", "string", "null"]}, {"types": ["number"]})  # type: ignore[untyped-decorator]
    def _func_times(self, value: float | str | None, factor: float) -> float | None:
        """times(value, factor): a number in another unit, such as cents to euros; null for an empty text."""
        return None if value is None or value == "" else float(value) * factor


_EVALUATION_ERRORS: Final = (
    jmespath.exceptions.JMESPathError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""Functions of JMESPath raise Python's own errors for some arguments."""
_FUNCTIONS: Final = _Functions()
_OPTIONS: Final = jmespath.Options(custom_functions=_FUNCTIONS)


class Expression:
    """A compiled JMESPath expression that names itself in errors."""

    def __init__(self, name: str, text: str) -> None:
        """Raises ConfigError where the text is no expression."""
        self.name = name
        self.text = text
        try:
            self._compiled = jmespath.compile(text)
        except jmespath.exceptions.JMESPathError as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{name} = {text!r} is no JMESPath expression: {reason}") from error
        self._path = _path_of(self._compiled.parsed)
        for function in _functions_in(self._compiled.parsed):
            if function not in _FUNCTIONS.FUNCTION_TABLE:
                known = ", ".join(sorted(_FUNCTIONS.FUNCTION_TABLE))
                raise ConfigError(f"{name} = {text!r}: there is no function {function!r}; there are {known}")

    def __call__(self, row: Any) -> Any:
        """Return the value for a row. Raises Unmappable `expression_failed` where a function does not fit it."""
        if self._path is not None:
            # Most expressions are paths, which need no interpreter.
            for name in self._path:
                row = row.get(name) if isinstance(row, dict) else None
            return row
        try:
            return self._compiled.search(row, options=_OPTIONS)
        except _EVALUATION_ERRORS as error:
            detail = f"{self.name} = {self.text!r}: {shown(str(error))}"
            raise Unmappable("expression_failed", detail) from error


def _path_of(node: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the names of a parsed expression that is a path, such as `row.user.id`; None for any other."""
    if node["type"] == "field":
        return (node["value"],)
    if node["type"] != "subexpression":
        return None
    paths = [_path_of(child) for child in node["children"]]
    return None if None in paths else tuple(name for path in paths for name in path or ())


def _functions_in(node: Any) -> Iterator[str]:
    """Yield the names of the functions that a parsed expression calls."""
    if isinstance(node, dict):
        if node["type"] == "function_expression":
            yield node["value"]
        for child in node["children"]:
            yield from _functions_in(child)


def load_mapping(path: Path) -> MappingFile:
    """Read a mapping file. Raises ConfigError: it is not TOML, has an unknown key, or lacks one."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        table = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    try:
        mapping = msgspec.convert(table, MappingFile)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from error
    if mapping.page is None and not mapping.click:
        raise ConfigError(f"{path}: it has neither [page] nor [[click]], so nothing would be converted")
    zone_of(mapping)
    return mapping


def zone_of(mapping: MappingFile) -> ZoneInfo | None:
    """Return the zone of times without one. Raises ConfigError for a name that is no zone."""
    name = mapping.time.zone
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ConfigError(f"time.zone = {name!r} is no time zone, such as UTC or Europe/Berlin") from error


def expressions(section: str, fields: Mapping[str, str | None]) -> dict[str, Expression]:
    """Compile the fields of a section that are set."""
    return {name: Expression(f"{section}.{name}", text) for name, text in fields.items() if text is not None}
