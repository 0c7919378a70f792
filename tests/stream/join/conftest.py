"""The promises of stage `join` hold of both implementations."""

from collections.abc import Iterator

import pytest

from prectr.stream.native.build import problem_of_build


@pytest.fixture(
    scope="module",
    params=["python", pytest.param("native", marks=pytest.mark.skipif(bool(problem_of_build()), reason="not built"))],
)
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the tests of a module with the stage in Python, then with the native core."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prectr.stream.stages.IS_NATIVE", request.param == "native")
        yield request.param
