"""The formats of the files that are written for other programs, chosen by the ends of their names."""

from pathlib import Path
from typing import Final

from prectr.state.errors import UsageError

SUFFIXES: Final = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")


def check_suffix(out: Path) -> None:
    """Raise UsageError for a name from which the format is not clear."""
    if not out.name.endswith(SUFFIXES):
        raise UsageError(f"the output {out}: its name must end in one of {', '.join(SUFFIXES)}")
