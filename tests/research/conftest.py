"""The research kit runs where Qlib does: `.venv-research/bin/python -m pytest tests/research`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "research"))
