"""The examples of the documents that are for the services' environment do run."""

import sys
from dataclasses import replace

import pytest

from tests.support.examples import DOCUMENTS, examples_in, examples_of, make_data, run

EXAMPLES = examples_of("services")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    make_data(folder, sys.executable)
    return folder


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.where)
def test_the_example_runs(example, folder):
    done = run(example, folder, sys.executable)

    assert done.returncode == 0, f"{example.where}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("reader", ["duckdb", "polars", "pandas", "pyarrow"])
def test_every_reader_that_the_documents_name_has_an_example(reader):
    assert any(f"import {reader}" in example.code for example in EXAMPLES)


@pytest.mark.parametrize(
    ("language", "code", "expected"),
    [("python", "raise SystemExit(3)", 3), ("python", "[]", 1), ("python", "[1]", 0), ("sh", "false; true", 1)],
)
def test_an_example_that_fails_or_answers_nothing_is_seen(language, code, expected, folder):
    example = replace(EXAMPLES[0], language=language, code=code)

    assert run(example, folder, sys.executable).returncode == expected


def test_a_mark_is_of_a_known_environment_and_has_a_block():
    for document in DOCUMENTS:
        found = examples_in(document)

        assert {example.environment for example in found} <= {"services", "research"}, document
        marks = [line for line in document.read_text().splitlines() if line.startswith("<!-- run:")]
        assert len(marks) == len(found), f"{document}: a mark without a block behind it"
