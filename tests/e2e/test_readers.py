"""Readers, while the converter lives and dies: the real pyqlib in a process of its own."""

import pytest

from proofs.readers.__main__ import watch
from proofs.rig.conversion import RESEARCH_PYTHON

pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(
        not RESEARCH_PYTHON.exists(), reason="pyqlib lives in the research environment: make env-research"
    ),
]


@pytest.mark.invariant(8)
def test_a_reader_never_sees_half_while_the_converter_is_killed_again_and_again(tmp_path):
    """Invariant 8. `python -m proofs.readers --kills 50` is the long form."""
    seen, minutes = watch(tmp_path, kills=8, seed=3)

    assert seen.clean, seen.first
    assert seen.reads > 5
    assert seen.calendars > 2
    assert minutes > 1600
