"""Settings of the api."""

from typing import Annotated

from pydantic import Field, SecretStr

from shared.runtime.settings import QlibSettings


class ApiSettings(QlibSettings):
    """api: reports whether the system is healthy."""

    api_host: Annotated[str, Field(description="Address on which the api answers; 0.0.0.0 in a container")] = (
        "127.0.0.1"
    )
    api_port: Annotated[int, Field(ge=0, le=65535, description="Port of the api; 0: any free one")] = 8000
    alert_urls: Annotated[
        SecretStr,
        Field(
            description="Where notifications of what is wrong are sent: apprise URLs (tgram://, slack://, discord://, "
            "mailto://, json:// ...), separated by commas or blanks; unset: nowhere. A secret"
        ),
    ] = SecretStr("")
    alert_every: Annotated[float, Field(gt=0, le=300, description="Seconds between two evaluations of alerts")] = 15.0
    alert_after: Annotated[
        float, Field(ge=0, le=31_536_000, description="Seconds that something must be wrong before it is reported")
    ] = 60.0
    alert_again: Annotated[
        float, Field(ge=0, le=876_000, description="Hours between reminders of what stays wrong; 0: none")
    ] = 24.0
    alert_symbol_minutes: Annotated[
        int,
        Field(
            ge=2,
            le=525_600,
            description="A symbol is stale whose newest candle is older than this, while others are fresh",
        ),
    ] = 10
    alert_disk_free: Annotated[
        float, Field(ge=0, le=100, description="Per cent of a disk; less free space than this is reported")
    ] = 10.0
