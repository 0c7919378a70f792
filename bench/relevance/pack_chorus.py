"""Packs the Chorus ratings into the catalogue that ships with the simulator: `python -m bench.relevance.pack_chorus`.

Reads ../shared/data/chorus; only needed when that data changes.
"""

import gzip
from pathlib import Path

import msgspec

SOURCE = Path(__file__).parents[3] / "shared" / "data" / "chorus"
TARGET = Path(__file__).parents[2] / "stream" / "simulator" / "data" / "chorus"
FIELDS = ("query", "doc", "grade", "title", "brand", "price")


def main() -> None:
    """Write pairs.jsonl.gz: query, product, grade, title, brand and price (cents) of each graded pair."""
    with gzip.open(SOURCE / "pairs.jsonl.gz", "rb") as source:
        pairs = [msgspec.json.decode(line) for line in source]
    packed = b"".join(msgspec.json.encode({field: pair[field] for field in FIELDS}) + b"\n" for pair in pairs)
    TARGET.mkdir(parents=True, exist_ok=True)
    (TARGET / "pairs.jsonl.gz").write_bytes(gzip.compress(packed, 9, mtime=0))
    (TARGET / "LICENSE").write_bytes((SOURCE / "LICENSE").read_bytes())
    print(f"{len(pairs)} pairs packed")


if __name__ == "__main__":
    main()
