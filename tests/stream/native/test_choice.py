"""Which implementation runs: the native core where it is built from these sources, Python elsewhere or if told."""

import sys
from pathlib import Path

import pytest

from prectr.state.errors import UsageError
from prectr.stream import stages
from prectr.stream.native import build
from prectr.stream.native.build import digest_of_sources, problem_of_build


def test_a_variable_chooses_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRECTR_NATIVE", "0")
    assert stages.described() == "stages in Python (PRECTR_NATIVE=0)"


def test_what_is_required_and_not_built_is_an_error_that_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prectr.stream.native.core", None)
    monkeypatch.setattr(stages, "problem_of_build", problem_of_build.__wrapped__)
    assert "the native core is not built: with a C++20 compiler" in stages.described()
    monkeypatch.setenv("PRECTR_NATIVE", "1")
    with pytest.raises(UsageError, match="PRECTR_NATIVE=1, but the native core is not built"):
        stages.described()


def test_a_core_of_other_sources_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("prectr.stream.native.core", reason="the extension is not built")
    (tmp_path / "join").mkdir()
    (tmp_path / "join" / "a.cpp").write_text("int a;")
    monkeypatch.setattr(build, "digest_of_sources", lambda: digest_of_sources(tmp_path))
    assert "built from other sources" in problem_of_build.__wrapped__()
    monkeypatch.setattr(build, "digest_of_sources", lambda: digest_of_sources(tmp_path / "none"))
    assert problem_of_build.__wrapped__() == ""
