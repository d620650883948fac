"""Settings: read once at the start, typed, described. Their names are the interface.

They come from the environment, then from a file `.env`. Below `__main__` functions take plain values.
"""

import sys
from datetime import time
from pathlib import Path
from typing import Annotated, Literal, NoReturn

from pydantic import Field, RedisDsn, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class CommonSettings(BaseSettings):
    """What every service needs to know."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        case_sensitive=False,
        extra="ignore",
        env_ignore_empty=True,
    )

    redis_url: Annotated[RedisDsn, Field(description="Redis that links the services; a password goes into the URL")] = (
        RedisDsn("redis://127.0.0.1:6379/0")
    )
    okx_rest_url: Annotated[str, Field(pattern=r"^https?://[^/]+$", description="REST host of the exchange")] = (
        "https://www.okx.com"
    )
    okx_ws_url: Annotated[
        str,
        Field(pattern=r"^wss://[^/]+/.*[^/]$", description="WebSocket base; /public and /business are appended"),
    ] = "wss://ws.okx.com:8443/ws/v5"
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

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("okx_rest_url", "okx_ws_url", mode="before")
    @classmethod
    def _without_trailing_slash(cls, value: object) -> object:
        return value.rstrip("/") if isinstance(value, str) else value


def read_settings[S: CommonSettings](kind: type[S], **overrides: object) -> S:
    """Read the settings of a service; a wrong one stops the start and names itself on stderr (exit code 2)."""
    try:
        return kind(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        _stop(error)


#: Settings whose value may hold a password: named, never shown.
_SECRET = frozenset({"ALERT_URLS", "REDIS_URL"})


def _stop(error: ValidationError) -> NoReturn:
    for problem in error.errors():
        name = "_".join(str(part) for part in problem["loc"][:1]).upper() or "settings"
        secret = name in _SECRET or not problem["loc"] or problem["type"] == "missing"
        shown = "" if secret else f"={problem.get('input')!r}"
        print(f"wrong setting: {name}{shown}: {problem['msg']}", file=sys.stderr)  # noqa: T201 - before logging is up
    raise SystemExit(2) from None


def catalogue(kinds: list[type[CommonSettings]]) -> str:
    """Spell every setting of some services, with meaning and default, as the text of an `.env` file."""
    lines = ["# Settings of qlib-crypto: copy to .env and change what you need. Everything has a sane default."]
    told: set[str] = set()
    for kind in kinds:
        fresh = {name: field for name, field in kind.model_fields.items() if name not in told}
        if fresh:
            lines += ["", f"# --- {(kind.__doc__ or kind.__name__).splitlines()[0]}"]
        for name, field in fresh.items():
            default = "" if field.default is None else field.default
            default = f"{default:%H:%M}" if isinstance(default, time) else default
            lines += [f"# {field.description}", f"#{name.upper()}={default}"]
        told |= set(fresh)
    return "\n".join(lines) + "\n"
