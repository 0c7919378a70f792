"""README and docs against the project: links, paths, anchors and commands exist, and the README stays short."""

import re
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer
from click import Context

from prectr.ops.cli.main import COMMANDS, app

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MAX_README_WORDS = 1_100
CODE_FOLDERS = ("bench", "docs", "model", "ops", "prectr", "state", "stream", "testkit", "tests")

per_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@per_page
def test_every_relative_link_leads_to_a_file_and_its_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / unquote(path)).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors_of(linked), f"{page.name} links to {target}"


@per_page
def test_every_path_of_the_repository_that_a_page_names_exists(page: Path) -> None:
    for name in re.findall(r"`([\w./-]+)`", page.read_text()):
        if name.startswith(tuple(f"{folder}/" for folder in CODE_FOLDERS)):
            assert (ROOT / name).exists(), f"{page.name} names {name}"


@per_page
def test_every_function_that_a_page_names_is_in_its_file(page: Path) -> None:
    """`path.py:name` or `path.py:Class.method`."""
    for path, name in re.findall(r"`([\w/]+\.py):([\w.]+)`", page.read_text()):
        source = (ROOT / path).read_text()
        for part in name.split("."):
            assert re.search(rf"^\s*(?:def|class) {part}\b|^\s*{part}\b.*=", source, re.MULTILINE), f"{path}:{name}"


@per_page
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    code = "\n".join(re.findall(r"`([^`]+)`", text) + re.findall(r"```console\n(.*?)```", text, re.DOTALL))
    for name in re.findall(r"(?:^|bin/)prectr (?:--[\w-]+ \w+ )*([a-z]+)", code, re.MULTILINE):
        assert name in COMMANDS, f"{page.name} names prectr {name}"
    makefile = (ROOT / "Makefile").read_text()
    for name in re.findall(r"^make ([a-z-]+)", code, re.MULTILINE):
        assert re.search(rf"^{name}:", makefile, re.MULTILINE), f"{page.name} names make {name}"
    for name in re.findall(r"^python -m (bench[\w.]*)", code, re.MULTILINE):
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), f"{page.name} names {name}"


@per_page
def test_every_flag_of_a_command_line_exists(page: Path) -> None:
    blocks = "\n".join(re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL))
    for line in re.findall(r"^(?:\.venv/bin/)?prectr (.+)$", blocks, re.MULTILINE):
        arguments = shlex.split(line, comments=True)
        start = next(index for index, argument in enumerate(arguments) if argument in COMMANDS)
        group: Any = typer.main.get_command(app)
        _, command, _ = group.resolve_command(Context(group), arguments[start:])
        if hasattr(command, "commands"):
            start += 1
            command = command.commands[arguments[start]]
        known = {option for parameter in command.params for option in parameter.opts}
        for flag in arguments[start:]:
            assert not flag.startswith("--") or flag.partition("=")[0] in known, f"{page.name}: prectr {line}: {flag}"


def test_the_readme_stays_short() -> None:
    assert len(README.read_text().split()) <= MAX_README_WORDS
