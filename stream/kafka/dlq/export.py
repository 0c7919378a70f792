"""Writes dead letters to a file, to be corrected and retried from there."""

from pathlib import Path

from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.dlq.reader import DeadLetterReader, read_retried
from prectr.stream.kafka.dlq.records import decode_dead_letter, is_retry_marker
from prectr.stream.kafka.io.topic_reader import Progress
from prectr.stream.sinks.exported_dead_letter import check_new_file, exported_line


def export_dead_letters(
    connection: Connection, topics: Topics, out: Path, progress: Progress, *, reason: str | None = None
) -> int:
    """Write the dead letters that were not retried, one per line; with `reason`, only those that have it.

    Returns:
        Their number.

    Raises:
        UsageError: the file exists; it may contain corrections.
        PrectrError: the broker does not answer, the topic does not exist, or a retry marker cannot be decoded.
    """
    check_new_file(out)
    # A file with the final name is complete.
    part = out.with_name(f"{out.name}.part")
    count = 0
    reader = DeadLetterReader(connection, topics)
    try:
        retried = read_retried(reader, progress=lambda done, total: progress(done, 2 * total))
        with part.open("wb") as file:
            for records in reader.read(progress=lambda done, total: progress(total + done, 2 * total)):
                for dead_letter in (decode_dead_letter(record) for record in records if not is_retry_marker(record)):
                    if dead_letter.ref not in retried and reason in (None, dead_letter.reason):
                        file.write(
                            exported_line(
                                str(dead_letter.ref), dead_letter.reason, dead_letter.detail, dead_letter.value
                            )
                        )
                        count += 1
        part.replace(out)
    finally:
        reader.close()
        part.unlink(missing_ok=True)
    return count
