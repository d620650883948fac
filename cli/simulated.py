"""Which settings has a simulated system? It leaves them in its folder, where its data stays after it has ended. I/O."""

import os
from pathlib import Path

from dotenv import dotenv_values

from cli.place import ROOT, SETTINGS_FILE, choose
from cli.unavailable import UsageProblemError
from shared.runtime.settings import NAMES

RUNS = ROOT / ".run"


def use_stack(name: str, runs: Path = RUNS) -> None:
    """Take the settings of a simulated system; no setting from elsewhere counts, as in its own services.

    Raises `UsageProblemError` where none of that name has run here.
    """
    folder = runs / name
    values = dotenv_values(folder / SETTINGS_FILE, encoding="utf-8", interpolate=False)
    if not values:
        there = ", ".join(sorted(file.parent.name for file in runs.glob(f"*/{SETTINGS_FILE}"))) or "none"
        raise UsageProblemError(f"no simulated system has run in {folder}; those that have: {there}")
    for setting in [setting for setting in os.environ if setting.upper() in NAMES]:
        del os.environ[setting]
    os.environ.update({setting: value for setting, value in values.items() if value is not None})
    choose(folder)
