"""The README is one screen per question, and its six links still lead one candle from the exchange to Qlib."""

import re

from tests.support.examples import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
STREAMS = {"candles"}


def test_it_is_short():
    assert len(TEXT.split()) <= 1500


def test_it_has_a_section_for_every_question():
    assert re.findall(r"^## (.+)$", TEXT, re.MULTILINE) == [
        "What it is",
        "Run it",
        "Read the data",
        "Research",
        "Operate it",
        "Trust it",
        "Extend it",
        "Licence",
    ]


def test_every_function_on_the_way_of_a_candle_is_in_a_file_that_is_linked():
    way = TEXT[TEXT.index("Follow one candle:") : TEXT.index("## Extend it")]
    links = re.findall(r"^\d\. .+$", way, re.MULTILINE)
    code = "\n".join((ROOT / path).read_text() for path in re.findall(r"\]\(([^)]+\.py)\)", way))
    named = {name for link in links for name in re.findall(r"(?<!\[)`([A-Za-z_]\w*(?:\.\w+)?)`(?!\])", link)}

    assert len(links) == 6
    for name in named - STREAMS:
        assert re.search(rf"\b(?:def|class) {name.rpartition('.')[2]}\b", code), f"{name} is in none of the files"


def test_every_file_that_it_links_to_is_there():
    """`make docs` checks the links of every document; this one takes no time."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", TEXT):
        assert (ROOT / target).exists(), target
