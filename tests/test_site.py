"""The site of docs/: each page has a place in it, each link leads to a page, and what is generated is
what the code says. Anchors are checked where the site is built, by `make docs`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loading import loaded
from pages import DOCS, GENERATED

ROOT = DOCS.parent
PAGES = sorted(DOCS.rglob("*.md"))


def places(entries: list[Any]) -> Iterator[str]:
    """The pages that a part of the navigation names."""
    for entry in entries:
        if isinstance(entry, str):
            yield entry
            continue
        for below in entry.values():
            yield from [below] if isinstance(below, str) else places(below)


def links(page: Path) -> list[str]:
    """What a page links to on this site."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text))
    return [link for link in found if not re.match(r"https?://|mailto:", link)]


def test_every_page_has_a_place_in_the_navigation() -> None:
    config = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    named = list(places(config["project"]["nav"]))
    assert len(named) == len(set(named))
    wanted = {
        page.relative_to(DOCS).as_posix()
        for page in PAGES
        if page.parent not in GENERATED or page.name == "index.md"
    }
    assert set(named) == wanted, "add the page to nav in zensical.toml"


@pytest.mark.parametrize("folder", sorted(GENERATED), ids=lambda folder: folder.name)
def test_an_index_lists_every_page_beside_it(folder: Path) -> None:
    linked = {
        link for page in folder.glob("*.md") for link in links(page) if (folder / link).exists()
    }
    assert linked == {page.name for page in folder.glob("*.md")} - {"index.md"}


@pytest.mark.slow
def test_every_link_leads_to_a_file_of_the_site() -> None:
    wrong = []
    for page in PAGES:
        for link in links(page):
            target = (page.parent / link.partition("#")[0]).resolve() if link[0] != "#" else page
            if not target.is_file() or DOCS not in target.parents:
                wrong.append(f"{page.relative_to(ROOT)}: {link}")
    assert wrong == []


def test_pictures_are_what_would_be_drawn() -> None:
    made = loaded("scripts/pictures.py").pictures()
    kept = {path: path.read_text(encoding="utf-8") for path in made}
    assert [path.name for path in made if made[path] != kept[path]] == [], "make docs draws them"


@pytest.mark.slow
def test_generated_pages_are_what_the_code_says() -> None:
    made = loaded("scripts/reference.py").pages()
    kept = {path: path.read_text(encoding="utf-8") for path in PAGES if path.parent in GENERATED}
    differ = sorted(path.name for path in made | kept if made.get(path) != kept.get(path))
    assert differ == [], "make docs writes them"
