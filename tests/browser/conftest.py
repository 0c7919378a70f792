"""One browser for all tests; without a browser the tests are skipped, or fail if CI=true."""

import os
from collections.abc import Iterator

import pytest

from testkit.chromium import HOW, Chrome, chrome, chrome_there


@pytest.fixture(scope="session")
def browser() -> Iterator[Chrome]:
    if not chrome_there():
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"no browser to test with: {HOW}")
        pytest.skip(f"no browser to test with: {HOW}")
    with chrome() as window:
        yield window
