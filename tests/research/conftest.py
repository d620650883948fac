"""The research kit runs where Qlib does: `.venv-research/bin/python -m pytest tests/research`."""

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parents[1] / "research"))

#: Warnings of libraries about each other, which nobody here can cure.
NOT_OURS = (
    "ignore:The 'generic' unit for NumPy timedelta is deprecated:DeprecationWarning",  # pandas 2 on numpy 2.5
    "ignore:The ``noload`` loader strategy is deprecated",  # mlflow on sqlalchemy 2.1
)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(FOLDER):
            for warning in NOT_OURS:
                item.add_marker(pytest.mark.filterwarnings(warning))
