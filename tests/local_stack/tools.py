"""External programs that some tests need: without one a test is skipped, or fails if CI=true."""

import os
import shutil

import pytest

PACKAGES = {
    "docker-compose": "docker-compose",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "amtool": "prometheus-alertmanager",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "systemd-analyze": "systemd",
}
"""Debian package of each."""


def needed(program: str) -> str:
    """Path of a program; skips or fails the test if it is missing."""
    found = shutil.which(program)
    if found is None:
        missing(f"no {program} to test with: apt-get install {PACKAGES[program]}")
    return str(found)


def missing(what: str) -> None:
    """Skip the test, or fail it in CI."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(what)
    pytest.skip(what)
