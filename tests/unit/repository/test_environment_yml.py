"""What conda users get is what the tests run on."""

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]


def test_conda_environment_is_the_research_group():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    packages = next(entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict))

    assert packages == groups["research"]
    assert conda["name"] == "qlib"
    assert "python=3.12" in conda["dependencies"]
