"""How Sphinx builds the site: `make docs`. Pages are Markdown that also reads well in a forge."""

import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from cli.docs.api import questions  # noqa: E402 - the root is no package, so its path comes first
from cli.docs.columns import columns  # noqa: E402 - the same

project = "qlib-crypto"
author = "the authors of qlib-crypto"
language = "en"

extensions = ["myst_parser"]
myst_heading_anchors = 4
exclude_patterns = ["_build"]

highlight_language = "none"  # a block that names no language is a shell's or a picture: guessed, it would be Python

html_theme = "furo"
html_title = "qlib-crypto"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
# Nothing is fetched from another host when a page is read: the theme brings its fonts, scripts and styles along.

_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)]+)\)")
_DOCS = "docs/"
_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Documents of the root that are pages of the site."""


def from_the_root(name: str) -> str:
    """Return a document of the repository's root as a page of the site: its links seen from docs/."""

    def seen_from_docs(link: re.Match[str]) -> str:
        target = link[1]
        if target.startswith(_DOCS):
            return f"]({target.removeprefix(_DOCS)})"
        return f"]({_PAGES.get(target, f'../{target}')})"

    return _LINK.sub(seen_from_docs, (ROOT / name).read_text(encoding="utf-8"))


#: Pages that are made of something else: what their text becomes before it is parsed.
_MADE: dict[str, Callable[[str], str]] = {
    "index": lambda text: f"{from_the_root('README.md')}\n{text.partition('<!-- site -->')[2]}",
    "contributing": lambda _: from_the_root("CONTRIBUTING.md"),
    "changelog": lambda _: from_the_root("CHANGELOG.md"),
    "api": lambda text: f"{text}\n{questions()}",
    "datasets": lambda text: text.replace("<!-- columns -->", columns()),
}


def make(_: Sphinx, page: str, source: list[str]) -> None:
    """Replace the text of a page that is made of something else; Sphinx calls it for every page that it reads."""
    if page in _MADE:
        source[0] = _MADE[page](source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect `make` with the reading of pages."""
    app.connect("source-read", make)
    return {"parallel_read_safe": True}


html_last_updated_fmt = f"{datetime.now(UTC):%Y-%m-%d}"
