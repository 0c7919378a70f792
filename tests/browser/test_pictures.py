"""The pictures of the documentation: small, readable, and each used in some page."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = sorted((DOCS / "images").iterdir())
MAX_BYTES = 200_000


def test_every_picture_is_small_and_whole() -> None:
    assert len(PICTURES) == 5
    for path in PICTURES:
        assert path.stat().st_size < MAX_BYTES, path
        if path.suffix == ".svg":
            assert ET.fromstring(path.read_text()).tag.endswith("svg")
            assert "url(http" not in path.read_text().replace('"', "")
        else:
            with Image.open(path) as picture:
                picture.load()
                assert picture.width in (1280, 400)


def test_every_picture_is_shown_and_no_other() -> None:
    pages = [*DOCS.glob("*.md"), DOCS.parent / "README.md"]
    shown = {name for page in pages for name in re.findall(r"\]\((?:docs/)?images/([^)]+)\)", page.read_text())}
    assert shown == {path.name for path in PICTURES}
