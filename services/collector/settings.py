"""Settings of the collector."""

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from shared.datasets.candle import Candle
from shared.datasets.channels import CHANNELS
from shared.runtime.settings import RawSettings

_FOR_EVER_DAYS = 36_500


class CollectorSettings(RawSettings):
    """collector: takes down closed candles and funding rates of the universe."""

    channels: Annotated[
        str, Field(description="What is collected, separated by commas: of " + " and ".join(CHANNELS))
    ] = "candles,funding"
    backfill_days: Annotated[
        int, Field(ge=0, le=3650, description="Whole UTC days of history to fetch before today; 0: from the start on")
    ] = 30
    follow_days: Annotated[
        Annotated[int, Field(ge=0, le=36_500)] | Literal["all"],
        Field(description="Days for which a symbol that left the universe is followed on; all: for ever"),
    ] = 90
    leaver_grace_hours: Annotated[
        float | None,
        Field(ge=0, le=876_000, description="The same in hours, instead of FOLLOW_DAYS; unset: FOLLOW_DAYS counts"),
    ] = None
    fill_absence: Annotated[
        bool, Field(description="Whether the time that a symbol was away for is fetched when it comes back")
    ] = True
    buffer_events: Annotated[
        int, Field(ge=1_000, le=10_000_000, description="Most events that wait in memory while Redis is away")
    ] = 200_000
    args_per_connection: Annotated[
        int, Field(ge=1, le=10_000, description="Most instruments that one WebSocket connection carries, per channel")
    ] = 200
    collector_metrics_port: Annotated[int, Field(ge=0, le=65535, description="Port of the metrics; 0: none")] = 9102

    @property
    def leaver_grace(self) -> timedelta:
        """How long a symbol that left is followed on, so that a position in it has prices until it is closed."""
        if self.leaver_grace_hours is not None:
            return timedelta(hours=self.leaver_grace_hours)
        return timedelta(days=_FOR_EVER_DAYS if self.follow_days == "all" else self.follow_days)

    @property
    def opened(self) -> list[str]:
        """The names of the channels, each once."""
        return _names_in(self.channels)

    @field_validator("channels")
    @classmethod
    def _channels_are_known(cls, value: str) -> str:
        names = _names_in(value)
        if unknown := [name for name in names if name not in CHANNELS]:
            raise ValueError(f"{unknown[0]!r} is no channel; there are {', '.join(CHANNELS)}")
        if Candle.stream not in names:
            raise ValueError(f"{Candle.stream} cannot be left out: what else there is stands beside them")
        return value

    @model_validator(mode="after")
    def _history_fits_retention(self) -> Self:
        if self.backfill_days > self.retention_days:
            raise ValueError(
                f"BACKFILL_DAYS={self.backfill_days} reaches beyond RETENTION_DAYS={self.retention_days}: "
                "history would be fetched and deleted again; lower the one or raise the other"
            )
        return self


def _names_in(text: str) -> list[str]:
    """Return the names between commas, each once."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
