"""Reads Avro schemas from a schema registry (Confluent's HTTP interface, which Karapace and Apicurio offer too)."""

import base64
import logging
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, Final

import msgspec

from prectr.state.errors import ConfigError, PrectrError
from prectr.stream.convert.outcome import Unmappable
from prectr.stream.kafka.ingest.avro_schema import parse_avro_schema

_TIMEOUT: Final = 10.0
_RETRY_DELAYS: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between the attempts to reach a registry that does not answer."""
_UNKNOWN_FOR: Final = 10.0
"""Seconds for which an id that the registry does not have is not asked for again."""
_MAX_UNKNOWN: Final = 10_000
_MAX_ANSWER_BYTES: Final = 16 << 20
_MAX_REFERENCES: Final = 1_000
_log = logging.getLogger(__name__)


class _Reference(msgspec.Struct):
    """A schema that another one refers to."""

    subject: str
    version: int


class _Answer(msgspec.Struct, rename="camel"):
    """A schema as the registry returns it; `schema` is JSON in a string."""

    schema: str
    schema_type: str = "AVRO"
    references: list[_Reference] = []


_decode_answer: Final = msgspec.json.Decoder(_Answer).decode


class SchemaRegistry:
    """Schemas by id. Each is fetched once; used by one thread at a time."""

    def __init__(
        self,
        url: str,
        user: str | None = None,
        password: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the address; nothing is fetched yet.

        Raises:
            ConfigError: the address is not one of HTTP, or contains a password.
        """
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"schema registry {url!r}: its address begins with http:// or https://")
        if "@" in parts.netloc:
            raise ConfigError("schema registry: its address contains a user; give user and password apart from it")
        self._url = url.rstrip("/")
        self._headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
        if user is not None:
            credentials = base64.b64encode(f"{user}:{password or ''}".encode()).decode()
            self._headers["Authorization"] = f"Basic {credentials}"
        self._sleep = sleep
        self._schemas: dict[int, Any] = {}
        self._unknown: dict[int, float] = {}
        """Ids that the registry does not have: when it was asked."""

    def schema(self, schema_id: int) -> Any:
        """Return the parsed schema of an id.

        Raises:
            Unmappable: `unknown_schema`, the registry does not have it; `unsupported_schema`, it is not an Avro schema
                or cannot be parsed.
            PrectrError: the registry does not answer, or rejects the login.
        """
        if schema_id in self._schemas:
            return self._schemas[schema_id]
        unknown_since = self._unknown.get(schema_id)
        if unknown_since is None or time.monotonic() - unknown_since > _UNKNOWN_FOR:
            answer = self._get(f"/schemas/ids/{schema_id}")
            if answer is not None:
                self._schemas[schema_id] = self._parse(schema_id, answer)
                return self._schemas[schema_id]
            if len(self._unknown) >= _MAX_UNKNOWN:
                self._unknown.clear()
            self._unknown[schema_id] = time.monotonic()
        raise Unmappable("unknown_schema", f"the registry has no schema {schema_id}")

    def _parse(self, schema_id: int, answer: _Answer) -> Any:
        named: dict[str, Any] = {}
        try:
            self._parse_references(answer, named, set())
            return _parse_avro(answer, named)
        except ValueError as error:
            raise Unmappable("unsupported_schema", f"schema {schema_id}: {error}") from error

    def _parse_references(self, answer: _Answer, named: dict[str, Any], seen: set[tuple[str, int]]) -> None:
        """Parse what a schema refers to, the innermost first."""
        for reference in answer.references:
            key = reference.subject, reference.version
            if key in seen:
                continue
            seen.add(key)
            if len(seen) > _MAX_REFERENCES:
                raise ValueError(f"more than {_MAX_REFERENCES} references")
            subject = urllib.parse.quote(reference.subject, safe="")
            found = self._get(f"/subjects/{subject}/versions/{reference.version}")
            if found is None:
                raise ValueError(f"the registry lacks version {reference.version} of its reference {reference.subject}")
            self._parse_references(found, named, seen)
            _parse_avro(found, named)

    def _get(self, path: str) -> _Answer | None:
        """Return what the registry has under a path, None if nothing; retries while it does not answer."""
        for delay in (*_RETRY_DELAYS, None):
            try:
                return self._request(path)
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return None
                if error.code in (401, 403):
                    raise PrectrError(
                        f"schema registry {self._url}: it rejects the login (HTTP {error.code}); check its user and"
                        " password"
                    ) from error
                if error.code < 500 and error.code != 429:
                    raise PrectrError(f"schema registry {self._url}{path}: HTTP {error.code} {error.reason}") from error
                reason = f"HTTP {error.code} {error.reason}"
            except (OSError, urllib.error.URLError) as error:
                reason = str(getattr(error, "reason", None) or error)
            if delay is not None:
                _log.warning("schema registry %s: %s: trying again in %g s", self._url, reason, delay)
                self._sleep(delay)
        raise PrectrError(
            f"schema registry {self._url} does not answer ({reason}); nothing committed is lost: check its address and"
            " rerun the command"
        )

    def _request(self, path: str) -> _Answer:
        request = urllib.request.Request(self._url + path, headers=self._headers)
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            content: bytes = response.read(_MAX_ANSWER_BYTES + 1)
        try:
            return _decode_answer(content)
        except msgspec.MsgspecError as error:
            raise PrectrError(
                f"schema registry {self._url}{path}: not the answer of a schema registry ({error}): check its address"
            ) from error


def _parse_avro(answer: _Answer, named: dict[str, Any]) -> Any:
    """Parse an Avro schema, to which the schemas in `named` are known; adds its own names to them."""
    if answer.schema_type != "AVRO":
        raise ValueError(f"its type is {answer.schema_type}, not AVRO")
    return parse_avro_schema(answer.schema, named)
