"""The simulator's own certificate authority: made once, kept beside the file that clients trust."""

import datetime as dt
import logging
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization

log = logging.getLogger(__name__)

NAMES = ("localhost", "127.0.0.1", "::1", "simulator")
"""What the leaf is valid for; `simulator` is the name of the container."""

RENEW_BEFORE = dt.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class _Files:
    """Where the parts are kept: ca.pem, and beside it ca-key.pem and ca-leaf.pem (key and chain)."""

    ca: Path

    @property
    def ca_key(self) -> Path:
        return self.ca.with_name(f"{self.ca.stem}-key.pem")

    @property
    def leaf(self) -> Path:
        return self.ca.with_name(f"{self.ca.stem}-leaf.pem")


def server_context(ca_file: Path | None, extra_names: tuple[str, ...] = ()) -> ssl.SSLContext:
    """Return the context of both ports, reusing what is stored; without a file everything is new."""
    names = tuple(dict.fromkeys(NAMES + extra_names))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if ca_file is None:
        trustme.CA(organization_name="qlib-crypto simulator").issue_cert(*names).configure_cert(context)
        return context
    files = _Files(ca_file)
    if not _is_usable(files, names):
        _issue(files, names)
    context.load_cert_chain(files.leaf)
    return context


def _is_usable(files: _Files, names: tuple[str, ...]) -> bool:
    try:
        ca = x509.load_pem_x509_certificate(files.ca.read_bytes())
        leaf = x509.load_pem_x509_certificates(files.leaf.read_bytes())[0]
        leaf.verify_directly_issued_by(ca)
        alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception as error:  # noqa: BLE001 whatever is wrong with stored files, new ones are the answer
        log.info("new certificates are made: %s", error)
        return False
    stored = {str(entry.value) for entry in alternatives}
    now = dt.datetime.now(dt.UTC)
    return stored >= set(names) and all(cert.not_valid_after_utc > now + RENEW_BEFORE for cert in (ca, leaf))


def _issue(files: _Files, names: tuple[str, ...]) -> None:
    """Issue a leaf, from the stored authority if it can be read, so that clients go on to trust it."""
    files.ca.parent.mkdir(parents=True, exist_ok=True)
    ca = _stored_authority(files)
    if ca is None:
        ca = trustme.CA(organization_name="qlib-crypto simulator")
        _write_private(files.ca_key, ca.private_key_pem.bytes())
    _write(files.leaf, ca.issue_cert(*names).private_key_and_cert_chain_pem.bytes(), 0o600)
    # The public part comes last: who waits for it finds a server that is able to answer.
    _write(files.ca, ca.cert_pem.bytes(), 0o644)


def _stored_authority(files: _Files) -> trustme.CA | None:
    try:
        ca = x509.load_pem_x509_certificate(files.ca.read_bytes())
        if ca.not_valid_after_utc < dt.datetime.now(dt.UTC) + RENEW_BEFORE:
            return None
        key = serialization.load_pem_private_key(files.ca_key.read_bytes(), password=None)
        if key.public_key() != ca.public_key():
            return None
        return trustme.CA.from_pem(files.ca.read_bytes(), files.ca_key.read_bytes())
    except (OSError, ValueError, TypeError):
        return None


def _write_private(path: Path, content: bytes) -> None:
    _write(path, content, 0o600)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write by rename, with the mode set before the content is there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.chmod(mode)
    temporary.replace(path)
