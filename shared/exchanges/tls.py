"""Whom a connection to an exchange trusts. I/O."""

import ssl
from pathlib import Path

from shared.exchanges.base import ExchangeUnavailable


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that trusts what the system trusts, and the CA of `ca_file` beside it.

    Raises `ExchangeUnavailable` while the file is not there (a simulator that has not started yet).
    """
    stamp = 0
    if ca_file is not None:
        try:
            stamp = ca_file.stat().st_mtime_ns
        except OSError as error:
            raise ExchangeUnavailable(f"OKX_CA_FILE={ca_file}: {error.strerror}") from error
    return _cached_context(ca_file, stamp)


_CONTEXTS: dict[tuple[Path | None, int], ssl.SSLContext] = {}


def _cached_context(ca_file: Path | None, stamp: int) -> ssl.SSLContext:
    if (ca_file, stamp) not in _CONTEXTS:
        context = ssl.create_default_context()
        if ca_file is not None:
            try:
                context.load_verify_locations(ca_file)
            except (ssl.SSLError, OSError) as error:
                raise ExchangeUnavailable(f"OKX_CA_FILE={ca_file}: no certificates in it: {error}") from error
        _CONTEXTS[ca_file, stamp] = context
    return _CONTEXTS[ca_file, stamp]
