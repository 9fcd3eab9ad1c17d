"""The pictures of the pages in docs/: each is on the page, and scripts/screens.py still takes every
one, in its size. What they show is not compared: whoever changes a page takes them again.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from chromium import program
from loading import loaded

ROOT = Path(__file__).parents[2]
SCREENS = ROOT / "docs" / "screens"


def test_each_picture_is_shown_and_each_that_is_shown_is_there() -> None:
    page = (ROOT / "docs/how-to/team.md").read_text(encoding="utf-8")
    shown = re.findall(r"\(\.\./screens/(.+?)\)", page)
    assert sorted(shown) == sorted(picture.name for picture in SCREENS.iterdir())


@pytest.mark.slow
def test_the_pages_can_still_be_taken_pictures_of(built: None, tmp_path: Path) -> None:
    if program() is None:
        pytest.skip("no Chromium here: apt-get install chromium-headless-shell")
    module = loaded("scripts/screens.py")
    names = module.take(tmp_path)
    assert sorted(names) == sorted(picture.name for picture in SCREENS.iterdir())
    for name in names:
        head = (tmp_path / name).read_bytes()[:24]
        assert head.startswith(b"\x89PNG")
        assert struct.unpack(">II", head[16:24]) == (module.WIDTH, module.HEIGHT)
