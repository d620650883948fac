"""Where does a command run, in a checkout or in an image, and whose settings and folders count? I/O."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds this code."""


def in_checkout() -> bool:
    """Return whether this is a checkout, where everything is, and not an image with one service."""
    return (ROOT / "Makefile").is_file()


def enter() -> None:
    """Work from where the settings are: `.env`, `.run` and relative folders are the checkout's, wherever one stands.

    An image has no checkout; there the working directory counts, as for its service.
    """
    if in_checkout():
        os.chdir(ROOT)
