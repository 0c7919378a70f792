"""The topics that `prectr ingest` is given on the command line."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from prectr.state.errors import UsageError
from prectr.stream.kafka.ingest.run import ForeignTopic
from prectr.stream.kafka.ingest.value_decoder import VALUE_FORMATS


def foreign_topics(inputs: Sequence[str], formats: Sequence[str], schemas: Sequence[str]) -> list[ForeignTopic]:
    """Return the topics to ingest.

    Args:
        inputs: each TOPIC=MAPPING.
        formats: each FORMAT, for all topics, or TOPIC=FORMAT; json where there is none.
        schemas: likewise, files.

    Raises UsageError for a word of another form, an unknown format, and a topic that is not an input or is one twice.
    """
    mappings: dict[str, Path] = {}
    for given in inputs:
        topic, equals, mapping = given.partition("=")
        if not (topic and equals and mapping):
            raise UsageError(f"{given!r} is not of the form TOPIC=MAPPING.toml")
        if topic in mappings:
            raise UsageError(f"topic {topic} is named twice")
        mappings[topic] = Path(mapping)
    formats_by_topic = _by_topic("--format", formats, mappings)
    schemas_by_topic = _by_topic("--schema", schemas, mappings)
    topics = []
    for name, mapping_file in mappings.items():
        found = next((each for each in VALUE_FORMATS if each == formats_by_topic.get(name, "json")), None)
        if found is None:
            raise UsageError(f"--format {formats_by_topic[name]}: the formats are {', '.join(VALUE_FORMATS)}")
        schema = schemas_by_topic.get(name)
        topics.append(
            ForeignTopic(
                name=name, mapping=mapping_file, value_format=found, schema=None if schema is None else Path(schema)
            )
        )
    return topics


def _by_topic(flag: str, given: Sequence[str], topics: Iterable[str]) -> dict[str, str]:
    """Return the value of a flag for each topic that has one; TOPIC=VALUE precedes VALUE, which is of all topics."""
    found: dict[str, str] = {}
    for value in given:
        topic, equals, own = value.partition("=")
        if not equals:
            found = dict.fromkeys(topics, value) | found
        elif topic in topics:
            found[topic] = own
        else:
            raise UsageError(f"{flag} {value}: topic {topic} is not one of those to read: {', '.join(topics)}")
    return found
