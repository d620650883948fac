"""Where does a command run, in a checkout or in an image, and whose settings and folders count? I/O."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds this code."""
API_URL_FILE = "api-url"
"""In which a running stack keeps the address of its api, for commands beside it."""
SETTINGS_FILE = "settings.env"
"""In which a simulated stack keeps its settings, for commands beside it and after it."""


def in_checkout() -> bool:
    """Return whether this is a checkout, where everything is, and not an image with one service."""
    return (ROOT / "Makefile").is_file()


_chosen: list[Path] = []


def choose(folder: Path) -> None:
    """Let commands work from a folder of their own choice."""
    _chosen[:] = [folder]


def enter() -> None:
    """Work from where the settings are: `.env`, `.run` and relative folders are the checkout's, wherever one stands.

    An image has no checkout; there the working directory counts, as for its service.
    """
    if _chosen or in_checkout():
        os.chdir(_chosen[0] if _chosen else ROOT)
