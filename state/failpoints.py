"""Named points that the program passes, so that a test can stop it exactly there.

Points: `after_produce`, `before_commit`, `after_commit`, `after_write` (a task's transaction and its state),
`rebalance` (tasks are being closed for another process), `snapshot` (its files are stored, its manifest is not),
`restore` (some of its files are back), `checkpoint` (the trainer's is written aside, and not renamed
yet), `retry_before_commit`, `retry_after_commit` (dead letters that are fed back).
"""

from collections.abc import Callable

_hook: Callable[[str], None] | None = None


def failpoint(name: str) -> None:
    """Pass a point. Does nothing, unless `on_points` has put something in its place."""
    if _hook is not None:
        _hook(name)


def set_failpoint_hook(hook: Callable[[str], None] | None) -> None:
    """Call `hook` with the name of every point from now on; None: no more."""
    global _hook  # noqa: PLW0603 (one process, one hook)
    _hook = hook
