"""The documentation site: what a dead link does, and what is made from the code."""

import re
import shlex
import subprocess

import pytest

from cli.docs.api import document, questions
from cli.docs.columns import columns
from shared.datasets.registry import BY_DATASET
from shared.storage.parquet import arrow_schema
from tests.support.examples import ROOT

SPHINX = ROOT / ".venv" / "bin" / "sphinx-build"


def strict_options():
    """Return the options that `make docs` builds with, but for its folders."""
    (options,) = re.findall(r"sphinx-build (.+) --doctree-dir ", (ROOT / "Makefile").read_text())
    return shlex.split(options)


@pytest.mark.skipif(not SPHINX.exists(), reason="needs the services' environment")
def test_a_dead_link_to_a_page_a_part_or_a_file_fails(tmp_path):
    alive, dead = ("other.md", "other.md#a-part", "source.py"), ("gone.md", "other.md#no-part", "gone.py")
    links = "\n\n".join(f"[link]({link})" for link in (*alive, *dead))
    (tmp_path / "start.md").write_text(f"# Start\n\n{links}\n\n```{{toctree}}\nother\n```\n")
    (tmp_path / "other.md").write_text("# Other\n\n## A part\n")
    (tmp_path / "source.py").write_text("")
    command = [SPHINX, *strict_options(), "-c", ROOT / "docs", "-D", "root_doc=start", tmp_path, tmp_path / "site"]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode != 0
    assert done.stderr.count("WARNING: ") == len(dead), done.stderr
    assert all(link.rpartition("#")[2] in done.stderr for link in dead)


def test_the_page_of_the_api_has_every_question_and_every_type_that_it_links_to():
    page = questions()

    assert re.findall(r"^## `GET (.+)`$", page, re.MULTILINE) == list(document()["paths"])
    assert set(re.findall(r"\]\(#([a-z]+)\)", page)) <= {
        name.lower() for name in re.findall(r"^### (.+)$", page, re.MULTILINE)
    }


def test_the_page_of_datasets_has_every_column():
    page = columns()

    for dataset, kind in BY_DATASET.items():
        (section,) = re.findall(rf"^### `{dataset}`$(.*?)(?=^### |\Z)", page, re.MULTILINE | re.DOTALL)
        assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == arrow_schema(kind).names
