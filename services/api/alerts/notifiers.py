"""Notifiers: one for each address of ALERT_URLS, which is a secret. apprise sends the messages. I/O."""

import logging
import re
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from urllib.parse import unquote

import apprise
from pydantic import SecretStr

from services.api.alerts.message import Message
from shared.runtime.settings import refuse_setting

MOST_QUEUED = 100
"""Messages per notifier; beyond it the oldest is dropped."""

_KINDS = {
    "critical": apprise.NotifyType.FAILURE,
    "warning": apprise.NotifyType.WARNING,
    None: apprise.NotifyType.SUCCESS,
}


class UnknownAddressError(ValueError):
    """An address that apprise does not know; the text has its number, and does not show it."""


class _Reasons(logging.Handler):
    """Collects what apprise logs in this thread. It is never logged as it is: it may contain parts of an address."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._here = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        self._texts().append(record.getMessage())

    def take(self) -> list[str]:
        """Return what was collected since the last call."""
        texts, self._here.texts = self._texts(), []
        return texts

    def _texts(self) -> list[str]:
        if not hasattr(self._here, "texts"):
            self._here.texts = []
        texts: list[str] = self._here.texts
        return texts


_REASONS = _Reasons()
_LOGGER = logging.getLogger("apprise")
_LOGGER.handlers, _LOGGER.propagate = [_REASONS], False
_LOGGER.setLevel(logging.WARNING)
for _name in ("urllib3", "requests_oauthlib", "oauthlib"):  # they log addresses, tokens included, when asked for DEBUG
    logging.getLogger(_name).setLevel(logging.ERROR)


# Each plugin limits the time of its own connections; a limit of apprise's would move the work into threads of its pool.
_ASSET = apprise.AppriseAsset(app_id="qlib-crypto", app_desc="qlib-crypto", service_timeout=0)


@dataclass
class Notifier:
    """One address: its public name, and the messages that wait to be sent there."""

    name: str
    digest: str
    """Identifies the address without showing it."""
    url: str = field(repr=False)
    queue: deque[Message] = field(default_factory=lambda: deque(maxlen=MOST_QUEUED))
    problem: str | None = None
    """Why the last attempt failed; None where it did not."""

    def send(self, message: Message) -> str | None:
        """Send a message; return why that failed, or None. Takes seconds: not for the event loop."""
        _REASONS.take()
        try:
            server = _server(self.url)
            delivered = server is not None and _through(server).notify(
                title=message.title,
                body=message.body,
                notify_type=_KINDS[message.severity],
                body_format=apprise.NotifyFormat.TEXT,
            )
        except Exception as error:  # noqa: BLE001 - of some hundred plugins, each with errors of its own; it is reported
            return type(error).__name__  # its text may hold the address
        return None if delivered else _without_address(self.url, "; ".join(_REASONS.take())) or "refused"


def notifiers(text: str) -> list[Notifier]:
    """Return a notifier for each address of a text. Raises `UnknownAddressError`."""
    urls = addresses(text)
    found = []
    for number, url in enumerate(urls, 1):
        server = _server(url)
        _REASONS.take()
        if server is None:
            raise UnknownAddressError(f"address {number} of {len(urls)} is unknown to apprise")
        digest = sha256(url.encode()).hexdigest()[:16]
        found.append(Notifier(f"{number} ({server.service_name})", digest, url))
    return found


def configured_notifiers(urls: SecretStr) -> list[Notifier]:
    """Read ALERT_URLS at the start of a process: an unknown address stops it (exit code 2), and is not shown."""
    try:
        return notifiers(urls.get_secret_value())
    except UnknownAddressError as error:
        refuse_setting(f"ALERT_URLS: {error}")


def addresses(text: str) -> list[str]:
    """Split at whitespace and at commas, but not at a comma inside an address."""
    return [part for part in re.split(r"\s+|,+(?=\s|$|[A-Za-z][A-Za-z0-9+.-]*://)", text.strip()) if part]


def _server(url: str) -> apprise.NotifyBase | None:
    server = apprise.Apprise.instantiate(url, asset=_ASSET)
    if server is not None:
        server.overflow_mode = apprise.OverflowMode.SPLIT  # rather two messages than none
    return server


def _through(server: apprise.NotifyBase) -> apprise.Apprise:
    sender = apprise.Apprise()
    sender.add(server)
    return sender


def _without_address(url: str, text: str) -> str:
    """Replace every part of an address in a text, except its schema."""
    _, _, rest = url.partition("://")
    parts = {part for spelled in (rest, unquote(rest)) for part in re.split(r"[/:@?&=,\s]+", spelled)}
    for part in sorted(parts - {""}, key=len, reverse=True):
        text = re.sub(
            rf"(?<!\w){re.escape(part)}(?!\w)" if len(part) < _SHORT else re.escape(part),
            "…",
            text,
            flags=re.IGNORECASE,
        )
    return text


_SHORT = 4
"""Shorter parts are only replaced as whole words: a port, a user called bob."""


def by_digest(among: Sequence[Notifier]) -> dict[str, Notifier]:
    """Return notifiers by their digest."""
    return {notifier.digest: notifier for notifier in among}
