"""The HTTP proxy through which the exchange is reached, where the environment names one.

    HTTPS_PROXY   for https:// and wss://, as http://host:port or http://user:password@host:port
    HTTP_PROXY    the same for http://
    NO_PROXY      hosts that are reached directly: names with all that end in them, addresses, networks, host:port, *

In upper or lower case; the lower case wins, and an empty value counts as not set. One rule for REST and WebSocket: left
to themselves, aiohttp goes directly where the proxy is one of https://, websockets prefers SOCKS_PROXY, and the two
read a port in NO_PROXY differently.
"""

import os
import re
from base64 import b64encode
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from urllib.parse import quote, unquote, urlsplit

PROXY_SETTINGS = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
_SECURE = {"https": 443, "wss": 443}
_PLAIN = {"http": 80, "ws": 80}
_HOST = re.compile(r"[\w.-]+|[0-9a-f:.]+", re.IGNORECASE)
_CREDENTIALS = re.compile(r"^(?P<scheme>[a-z][a-z0-9+.-]*://)?.*@", re.IGNORECASE | re.DOTALL)
_EXCEPTION = re.compile(r"(?P<name>\[.*\]|[^:]*)(?::(?P<port>\d+))?")
_SHOWN = 200


class ProxyError(ValueError):
    """A proxy that cannot be used as it is set; the text names the setting, and no password."""


@dataclass(frozen=True)
class Proxy:
    """A proxy, and the setting that names it."""

    setting: str
    host: str
    port: int
    user: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)

    @property
    def address(self) -> str:
        """Return its URL without user and password."""
        return f"http://{self._at()}"

    @property
    def url(self) -> str:
        """Return its URL with user and password: a secret."""
        if self.user is None:
            return self.address
        return f"http://{quote(self.user, safe='')}:{quote(self.password, safe='')}@{self._at()}"

    @property
    def headers(self) -> dict[str, str]:
        """Return what a request to the proxy carries: a secret."""
        if self.user is None:
            return {}
        return {"Proxy-Authorization": "Basic " + b64encode(f"{self.user}:{self.password}".encode()).decode()}

    def _at(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"the proxy of {self.setting} ({self.address})"


def proxy_for(url: str, environment: Mapping[str, str] | None = None) -> Proxy | None:
    """Return the proxy for a URL; None where it is reached directly. Pure, but for reading the environment by default.

    Raises `ProxyError` where the proxy that the environment names cannot be used.
    """
    variables = os.environ if environment is None else environment
    target = urlsplit(url)
    setting = "HTTPS_PROXY" if target.scheme in _SECURE else "HTTP_PROXY"
    if not (value := value_of(setting, variables)):
        return None
    port = target.port or (_SECURE | _PLAIN).get(target.scheme, 0)
    if _is_direct(target.hostname or "", port, value_of("NO_PROXY", variables)):
        return None
    return _proxy_of(setting, value)


def value_of(setting: str, variables: Mapping[str, str]) -> str:
    """Return what a setting says in either case; empty where it is not set. Pure."""
    return variables.get(setting.lower(), "").strip() or variables.get(setting, "").strip()


def take_over(file: Mapping[str, str], environment: MutableMapping[str, str]) -> None:
    """Put what a file says of proxies into the environment, where every library looks; what is there already wins."""
    for setting in PROXY_SETTINGS:
        if not value_of(setting, environment) and (value := value_of(setting, file)):
            environment[setting] = environment[setting.lower()] = value


def _proxy_of(setting: str, value: str) -> Proxy:
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        port = 80 if parts.port is None else parts.port
    except ValueError:
        raise ProxyError(_wrong(setting, value)) from None  # its text may repeat a part of the password
    if parts.scheme != "http":
        raise ProxyError(
            f"{setting}={_without_credentials(value)!r}: a proxy of {parts.scheme}:// cannot be used, only one of "
            "http://, which carries TLS all the same"
        )
    host = parts.hostname or ""
    if not _HOST.fullmatch(host) or port == 0 or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ProxyError(_wrong(setting, value))
    user = None if parts.username is None else unquote(parts.username)
    return Proxy(setting, host, port, user, unquote(parts.password or ""))


def _wrong(setting: str, value: str) -> str:
    return (
        f"{setting}={_without_credentials(value)!r}: no proxy can be made of it; it is spelled http://host:port or "
        "http://user:password@host:port, with what is special in user and password as %-codes"
    )


def _without_credentials(value: str) -> str:
    return _CREDENTIALS.sub(lambda found: f"{found['scheme'] or ''}***@", value)[:_SHOWN]


def _is_direct(host: str, port: int, no_proxy: str) -> bool:
    return any(_covers(entry, host.rstrip("."), port) for entry in re.split(r"[,\s]+", no_proxy.lower()) if entry)


def _covers(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    found = _EXCEPTION.fullmatch(entry)
    name = found["name"].strip("[]") if found else entry
    if found and found["port"] and int(found["port"]) != port:
        return False
    with suppress(ValueError):
        address = ip_address(host)
        with suppress(ValueError):
            return address in ip_network(name, strict=False)
        return False
    name = name.removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))
