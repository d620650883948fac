"""Versions of day files, compared: by content where both say theirs, else by the signature of the file. Mostly pure."""

import hashlib
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from shared.storage.layout import partitions
from shared.storage.parquet import version_of


def signature_in(version: str) -> str:
    """Return the signature of the file that a version names. Versions of before contents were named are one."""
    return version.rpartition("@")[2]


def content_in(version: str) -> str:
    """Return what names the content: of a file that does not say its own, the signature."""
    content, _, file = version.rpartition("@")
    return content or file


def digest_of(versions: Mapping[str, str]) -> str:
    """Name the version of a whole day from the versions of its files, by symbol."""
    contents = {symbol: content_in(version) for symbol, version in versions.items()}
    return hashlib.sha256(repr(sorted(contents.items())).encode()).hexdigest()[:16]


def day_digest(root: Path, dataset: str, day: date) -> str:
    """Name the version of a whole day that is on disk: it differs as soon as the rows of one of its files do. I/O."""
    files = partitions(root, dataset, day)
    return digest_of({file.symbol or "": version_of(file.path(root), status) for file, status in files})
