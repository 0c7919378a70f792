"""One browser for all tests; without one they are skipped, or fail if CI=true."""

import os
from collections.abc import Iterator

import pytest

from testkit.chromium import INSTALL_HINT, Chrome, chrome, chrome_available


@pytest.fixture(scope="session")
def browser() -> Iterator[Chrome]:
    if not chrome_available():
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"no browser to test with: {INSTALL_HINT}")
        pytest.skip(f"no browser to test with: {INSTALL_HINT}")
    with chrome() as window:
        yield window
