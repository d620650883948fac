"""The examples of the documents that are for Qlib's environment do run."""

import os
import sys

import pytest

from tests.support.examples import ROOT, examples_of, make_data, run

EXAMPLES = examples_of("research")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    make_data(folder, os.environ.get("QLIB_CRYPTO_PYTHON", str(ROOT / ".venv" / "bin" / "python")))
    return folder


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.where)
def test_the_example_runs(example, folder):
    done = run(example, folder, sys.executable)

    assert done.returncode == 0, f"{example.where}\n{done.stdout}\n{done.stderr}"
