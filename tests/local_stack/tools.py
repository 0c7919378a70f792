"""Programs of the machine that some tests need: without one a test is skipped, where CI=true it fails."""

import os
import shutil

import pytest

PACKAGES = {
    "docker-compose": "docker-compose",
    "prometheus": "prometheus",
    "promtool": "prometheus",
}
"""Debian's package of each."""


def needed(program: str) -> str:
    """Where a program is."""
    found = shutil.which(program)
    if found is None:
        missing(f"no {program} to test with: apt-get install {PACKAGES[program]}")
    return str(found)


def missing(what: str) -> None:
    """Skip, or fail in CI."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(what)
    pytest.skip(what)
