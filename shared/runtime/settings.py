"""Settings: read once at the start, typed, described. Their names are the interface.

They come from the environment, then from a file `.env`. Below `__main__` functions take plain values.
"""

import os
import re
import socket
import sys
from collections.abc import Iterable, Iterator
from datetime import time
from difflib import get_close_matches
from io import StringIO
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, NoReturn
from urllib.parse import SplitResult, urlsplit

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import Field, RedisDsn, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.bus.address import check_options
from shared.bus.heartbeat import Cadence
from shared.exchanges.proxy import PROXY_SETTINGS, ProxyError, proxy_for, take_over, value_of
from shared.exchanges.registry import EXCHANGES

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class CommonSettings(BaseSettings):
    """Settings of every service."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        case_sensitive=False,
        extra="ignore",
        env_ignore_empty=True,
        allow_inf_nan=False,
    )

    redis_url: Annotated[RedisDsn, Field(description="Redis that links the services; a password goes into the URL")] = (
        RedisDsn("redis://127.0.0.1:6379/0")
    )
    exchange: Annotated[str, Field(description="Exchange that ranker, collector and audit speak to")] = "okx"
    okx_rest_url: Annotated[str, Field(description="REST host of the exchange")] = "https://www.okx.com"
    okx_ws_url: Annotated[str, Field(description="WebSocket base; /public and /business are appended")] = (
        "wss://ws.okx.com:8443/ws/v5"
    )
    okx_ca_file: Annotated[
        Path | None,
        Field(description="CA certificate to trust beside the system's, such as the simulator's; unset for OKX"),
    ] = None
    data_dir: Annotated[Path, Field(description="Folder of the raw Parquet data")] = Path("okx_data")
    log_level: Annotated[LogLevel, Field(description="Least important level that is logged")] = "INFO"
    log_format: Annotated[
        Literal["auto", "json", "console"],
        Field(description="json for machines, console for people, auto: console on a terminal"),
    ] = "auto"
    metrics_host: Annotated[str, Field(description="Address on which a service shows its Prometheus metrics")] = (
        "127.0.0.1"
    )

    @property
    def cadence(self) -> Cadence | None:
        """When results of the service are due; its heartbeat publishes it. None: it has no schedule."""
        return None

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("exchange")
    @classmethod
    def _known_exchange(cls, value: str) -> str:
        if value not in EXCHANGES:
            raise ValueError(f"must be one of {', '.join(EXCHANGES)}")
        return value

    @field_validator("okx_rest_url", "okx_ws_url", mode="before")
    @classmethod
    def _without_trailing_slash(cls, value: object) -> object:
        return value.rstrip("/") if isinstance(value, str) else value

    @field_validator("*")
    @classmethod
    def _place(cls, value: object) -> object:
        return _at_home(value) if isinstance(value, Path) else value

    @field_validator("metrics_host", "api_host", check_fields=False)
    @classmethod
    def _listening_host(cls, value: str) -> str:
        _check_host(value)
        return value

    @field_validator("redis_url")
    @classmethod
    def _usable_redis(cls, value: RedisDsn) -> RedisDsn:
        _check_redis(value)
        return value

    @field_validator("okx_rest_url")
    @classmethod
    def _rest_host(cls, value: str) -> str:
        parts = _address(value)
        if parts.scheme not in {"https", "http"} or parts.path:
            raise ValueError("must be https:// or http:// and a host, such as https://www.okx.com")
        return value

    @field_validator("okx_ws_url")
    @classmethod
    def _websocket_base(cls, value: str) -> str:
        parts = _address(value)
        if parts.scheme != "wss" or not parts.path:
            raise ValueError("must be wss://, a host and a path, such as wss://ws.okx.com:8443/ws/v5")
        return value


class RawSettings(CommonSettings):
    """collector and writer: how long raw candles are kept."""

    retention_days: Annotated[
        int,
        Field(
            ge=1,
            le=100_000,
            description="Days for which raw candles are kept; older history is not fetched, and a day that is not in "
            "Qlib yet is kept longer",
        ),
    ] = 90


class QlibSettings(CommonSettings):
    """Settings of a service that reads or writes the Qlib data."""

    qlib_dir: Annotated[Path, Field(description="Qlib's provider folder")] = Path("qlib_data")

    @field_validator("qlib_dir")
    @classmethod
    def _named_folder(cls, value: Path) -> Path:
        if not value.resolve().name:
            raise ValueError("must be a folder with a name, such as qlib_data: its versions are kept beside it")
        return value


def _address(value: str) -> SplitResult:
    """Take an address apart. Raises `ValueError` for one that no client could use."""
    if re.search(r"[\s\x00-\x1f\x7f]", value):
        raise ValueError("must not contain a blank")
    parts = urlsplit(value)
    _ = parts.port  # raises ValueError where it is no port
    if parts.scheme and not parts.hostname:
        raise ValueError("must name a host")
    if "?" in value or "#" in value:
        raise ValueError("must end with the host or a path, without ? and #")
    if parts.hostname:
        _check_host(parts.hostname)
    return parts


def _at_home(path: Path) -> Path:
    """Expand ~ as a shell does; in a file no shell does it. Raises `ValueError` for a path that names nothing."""
    if not str(path).strip() or re.search(r"[\x00-\x1f\x7f]", str(path)):
        raise ValueError("must be the path of a file or folder: not blank, without control characters")
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError("must not begin with ~ and a name that no user here has") from None


_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")


def _check_host(host: str) -> None:
    """Raise `ValueError` for what is neither an IP address nor the name of a host."""
    try:
        ip_address(host)
    except ValueError:
        try:
            labels = host.removesuffix(".").encode("idna").decode("ascii").split(".")
        except UnicodeError:
            labels = [""]
        if not all(_LABEL.fullmatch(label) for label in labels):
            raise ValueError(
                "must name a host: an IP address, such as 127.0.0.1, or labels of at most 63 letters, digits and "
                "hyphens with dots between them"
            ) from None


def _check_redis(url: RedisDsn) -> None:
    """Raise `ValueError`, which shows no password, for a URL that redis-py fails on later or reads as another one."""
    if not re.fullmatch(r"/?|/\d+", url.path or "", re.ASCII) or url.fragment is not None:
        raise ValueError("must end with the number of a database, such as redis://127.0.0.1:6379/0")
    if url.host:
        _check_host(url.host.strip("[]"))
    check_options(str(url), url.query or "")


def refuse_setting(problem: str) -> NoReturn:
    """Stop the start because of a wrong setting: name it on stderr, and exit with code 2."""
    print(f"wrong setting: {problem}", file=sys.stderr)  # noqa: T201 - before logging is up
    raise SystemExit(2)


def read_settings[S: CommonSettings](kind: type[S], **overrides: object) -> S:
    """Read the settings of a service; a wrong one stops the start and names itself on stderr (exit code 2)."""
    if sys.getfilesystemencoding().lower() not in {"utf-8", "utf8"}:
        refuse_setting(
            f"names of files are spelled in {sys.getfilesystemencoding()} here, "
            "and symbols may be of any script: set PYTHONUTF8=1, or a locale such as C.UTF-8"
        )
    _check_file(Path(".env"))
    try:
        settings = kind(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        _stop(error)
    file = values_in_file(Path(".env"))
    for name, nearest in unknown_names(os.environ, file).items():
        meant = f"; did you mean {nearest}?" if nearest else ""
        print(f"unknown setting: {name} is ignored{meant}", file=sys.stderr)  # noqa: T201 - before logging is up
    if "redis_url" not in settings.model_fields_set and (here := running_redis(settings)) is not None:
        settings.redis_url = here
    _check_ca_file(settings)
    take_over(file, os.environ)
    _check_proxies(settings)
    return settings


REDIS_URL_FILE = "redis-url"
"""File in which `make run` publishes the address of the Redis that it started, for commands beside it."""


def local_folder(settings: CommonSettings) -> str:
    """Return the folder of `make run` in `.run`: one for each exchange, so that a simulated one never shows as OKX."""
    host = settings.okx_rest_url.split("://", 1)[1]
    okx = CommonSettings.model_fields["okx_rest_url"].default
    return "local" if settings.okx_rest_url == okx else f"local-{re.sub('[^A-Za-z0-9]+', '-', host)}"


def running_redis(settings: CommonSettings) -> RedisDsn | None:
    """Return the Redis that `make run` has started in this project, where it still answers."""
    try:
        file = Path(".run", local_folder(settings), REDIS_URL_FILE)
        address = RedisDsn(file.read_text(encoding="utf-8").strip())
        with socket.create_connection((address.host or "", address.port or 0), timeout=1):
            return address
    except (OSError, ValueError):
        return None


def _check_ca_file(settings: CommonSettings) -> None:
    """Refuse a certificate that is not there, unless a simulator may write it still."""
    host = settings.okx_rest_url.split("://", 1)[1].rsplit(":", 1)[0]
    if settings.okx_ca_file is not None and not settings.okx_ca_file.is_file() and host.endswith("okx.com"):
        refuse_setting(f"OKX_CA_FILE={str(settings.okx_ca_file)!r}: there is no such file; OKX itself needs none")


def _check_proxies(settings: CommonSettings) -> None:
    """Refuse a proxy that cannot be used; warn that ALL_PROXY is not used."""
    for address in (settings.okx_rest_url, settings.okx_ws_url):
        try:
            proxy = proxy_for(address)
        except ProxyError as error:
            refuse_setting(str(error))
        if proxy is None and value_of("ALL_PROXY", os.environ) and not value_of("NO_PROXY", os.environ):
            print(  # noqa: T201 - before logging is up
                "unused setting: ALL_PROXY is not used for the exchange, which is reached directly; set HTTPS_PROXY",
                file=sys.stderr,
            )
            break


NAMES = frozenset(
    [
        "ALERT_AFTER",
        "ALERT_AGAIN",
        "ALERT_DISK_FREE",
        "ALERT_EVERY",
        "ALERT_SYMBOL_MINUTES",
        "ALERT_URLS",
        "API_HOST",
        "API_PORT",
        "ARGS_PER_CONNECTION",
        "AUDIT_PAGES_PER_HOUR",
        "BACKFILL_DAYS",
        "BUFFER_EVENTS",
        "CHANNELS",
        "COLLECTOR_METRICS_PORT",
        "COMPACT_EVERY",
        "CONVERT_AT",
        "CONVERT_EVERY",
        "CONVERT_PROCESSES",
        "CONVERTER_METRICS_PORT",
        "DATA_DIR",
        "EXCHANGE",
        "FILL_ABSENCE",
        "FLUSH_ENTRIES",
        "FLUSH_SECONDS",
        "FOLLOW_DAYS",
        "LEAVER_GRACE_HOURS",
        "LOG_FORMAT",
        "LOG_LEVEL",
        "METRICS_HOST",
        "OKX_CA_FILE",
        "OKX_REST_URL",
        "OKX_WS_URL",
        "PARTIAL_BARS",
        "PATCH_EVERY",
        "QLIB_DIR",
        "RANK_BY",
        "RANK_EVERY_HOURS",
        "RANKER_METRICS_PORT",
        "REDIS_URL",
        "RETENTION_DAYS",
        "STOCK_FIELDS",
        "TOP_N",
        "WRITER_METRICS_PORT",
    ]
)
"""The settings of all services: one of another service is no mistake."""
_OF_COMPOSE = {"REDIS_PASSWORD", "SIM_ARGS", "SIM_DATA_DIR", "JUPYTER_PORT", "JUPYTER_TOKEN"}
_PROXIES = {*PROXY_SETTINGS, "ALL_PROXY"}
_LIKENESS = 0.85


def unknown_names(environment: Iterable[str], file: Iterable[str]) -> dict[str, str | None]:
    """Return names that resemble a setting and are none → the most similar setting. Pure.

    Every name in our own file is meant as a setting; in the environment only one that resembles a setting.
    """
    found: dict[str, str | None] = {}
    for name in file:
        plain = name.upper()
        if plain not in NAMES | _OF_COMPOSE | _PROXIES and not plain.startswith("COMPOSE_"):
            found[name] = _nearest(plain, 0.6)
    for name in environment:
        if name.upper() not in NAMES | _OF_COMPOSE and (nearest := _nearest(name.upper(), _LIKENESS)) is not None:
            found[name] = nearest
    return found


def _nearest(name: str, likeness: float) -> str | None:
    squeezed = {known.replace("_", ""): known for known in NAMES}
    close = get_close_matches(name.replace("_", ""), squeezed, n=1, cutoff=likeness)
    return squeezed[close[0]] if close else None


def _check_file(path: Path) -> None:
    """Refuse a file of settings of which something would be ignored: all of it, or a line."""
    if problem := problem_of_file(path):
        refuse_setting(problem)


def problem_of_file(path: Path) -> str | None:
    """Return what of a file of settings cannot be read; None where nothing is wrong, or there is no file."""
    if not os.path.lexists(path):
        return None
    try:
        # Opening a pipe would wait for whoever writes into it.
        text = None if path.is_fifo() else path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        wrong: str | None = f"is no text in UTF-8 ({error}): save it as UTF-8"
    except OSError as error:
        wrong = f"cannot be read ({error.strerror}): it must be a file that this user may read, or not be there"
    else:
        wrong = "is a pipe: it must be a file" if text is None else _wrong_line(text)
    return f"{path} {wrong}" if wrong else None


def _wrong_line(text: str) -> str | None:
    """Return which line of a file of settings cannot be read, without its value, which may be a secret. Pure."""
    for binding in parse_stream(StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            original = binding.original.string
            line = binding.original.line + original[: len(original) - len(original.lstrip())].count("\n")
            found = re.match(r"\s*(?:export\s+)?(\w+)", original)
            name = f" ({found[1]})" if found and found[1].upper() in NAMES | _OF_COMPOSE | _PROXIES else ""
            return f"line {line}{name} cannot be read: it must be NAME=value, and a quote that is opened must be closed"
    return None


def values_in_file(path: Path) -> dict[str, str]:
    """Return what a file of settings sets; nothing where there is none."""
    values = dotenv_values(path, encoding="utf-8", interpolate=False)
    return {name: value or "" for name, value in values.items() if name}


#: Settings whose value may hold a password: named, never shown.
_SECRET = frozenset({"ALERT_URLS", "REDIS_URL"})


def _stop(error: ValidationError) -> NoReturn:
    for problem in problems_of(error):
        print(f"wrong setting: {problem}", file=sys.stderr)  # noqa: T201 - before logging is up
    raise SystemExit(2) from None


def problems_of(error: ValidationError) -> Iterator[str]:
    """Yield what is wrong with each setting, and no secret. Pure."""
    for problem in error.errors():
        name = "_".join(str(part) for part in problem["loc"][:1]).upper() or "settings"
        secret = name in _SECRET or not problem["loc"] or problem["type"] == "missing"
        shown = "" if secret else f"={problem.get('input')!r}"
        yield f"{name}{shown}: {problem['msg']}"


def catalogue(kinds: list[type[CommonSettings]]) -> str:
    """Return every setting of some services, with meaning and default, as the text of an `.env` file."""
    lines = ["# Settings of qlib-crypto: copy to .env and change what you need. Everything has a sane default."]
    listed: set[str] = set()
    for kind in kinds:
        fresh = {name: field for name, field in kind.model_fields.items() if name not in listed}
        if fresh:
            lines += ["", f"# --- {(kind.__doc__ or kind.__name__).splitlines()[0]}"]
        for name, field in fresh.items():
            default = "" if field.default is None else field.default
            default = f"{default:%H:%M}" if isinstance(default, time) else default
            lines += [f"# {field.description}", f"#{name.upper()}={default}"]
        listed |= set(fresh)
    return "\n".join(lines) + "\n"
