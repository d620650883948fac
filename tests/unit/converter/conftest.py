"""The two folders of a conversion."""

import pytest


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "okx_data"


@pytest.fixture
def qlib(tmp_path):
    return tmp_path / "qlib_data"
