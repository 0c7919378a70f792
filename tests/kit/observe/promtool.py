"""Prometheus' own tool: Debian's package prometheus. Without it its tests are skipped, and fail where CI=true."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def promtool(*args: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool to its end. text: what it reads."""
    tool = shutil.which("promtool")
    if tool is None:
        missing = "no promtool to check rules, expressions and metrics with: apt install prometheus"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return subprocess.run([tool, *map(str, args)], input=text, check=False, capture_output=True, text=True, timeout=120)


def assert_lint_clean(exposition: str) -> None:
    """Assert that promtool finds no fault with what an exporter serves."""
    done = promtool("check", "metrics", text=exposition)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
