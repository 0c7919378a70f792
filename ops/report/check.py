"""Checks a report against its run."""

from pathlib import Path

import msgspec

from prectr.stream.join.outcomes import Outcomes
from prectr.stream.replay.verify import Check, read_metas, read_newest


class _Reported(msgspec.Struct):
    """The fields of `report.json` that are checked."""

    pages: int
    outcomes: Outcomes
    examples_sha256: str
    aggregates_sha256: str


def check_report(run_dir: Path) -> list[Check]:
    """Check that the counts in `report.json` add up and, for a finished run, equal those of the checkpoint.

    Returns no checks for a run without a report, which has not ended yet.
    """
    path = run_dir / "report.json"
    if not path.exists():
        return []
    try:
        report = msgspec.json.decode(path.read_bytes(), type=_Reported)
    except (OSError, msgspec.MsgspecError) as error:
        return [Check("report.json", holds=False, detail=f"cannot be read: {error}")]
    imbalances = report.outcomes.imbalances()
    checks = [Check("report: conservation", not imbalances, "; ".join(imbalances) or "the counts add up")]
    checkpoint, (join_metas, _) = read_newest(run_dir, lambda folder, _: read_metas(folder))
    if not checkpoint.finished:
        return checks
    outcomes = sum((meta.outcomes for meta in join_metas.values()), Outcomes())
    same = (report.outcomes, report.examples_sha256, report.aggregates_sha256) == (
        outcomes,
        checkpoint.digest.examples,
        checkpoint.digest.aggregates,
    )
    detail = (
        "counts and digests as in the checkpoint"
        if same
        else f"the checkpoint has {outcomes} and {checkpoint.digest.examples}"
    )
    return [*checks, Check("report: of this run", same, detail)]
