"""Settings of the ranker."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from shared.bus.heartbeat import Cadence
from shared.datasets.row import RankBy
from shared.runtime.settings import CommonSettings


class RankerSettings(CommonSettings):
    """ranker: ranks all swaps by absolute funding rate."""

    top_n: Annotated[
        Annotated[int, Field(ge=1, le=10_000)] | Literal["all"],
        Field(description="How many swaps are in the universe; all: every live crypto swap"),
    ] = 50
    rank_by: Annotated[RankBy, Field(description="raw: the funding rate as published; per_8h: brought to 8 hours")] = (
        "raw"
    )
    rank_every_hours: Annotated[
        int, Field(ge=1, le=24, description="Hours between rankings, counted from midnight UTC; they divide a day")
    ] = 8
    ranker_metrics_port: Annotated[int, Field(ge=0, le=65535, description="Port of the metrics; 0: none")] = 9101

    @property
    def cadence(self) -> Cadence:
        """A ranking is due every RANK_EVERY_HOURS."""
        return Cadence(every_seconds=self.rank_every_hours * 3600)

    @field_validator("rank_every_hours")
    @classmethod
    def _divides_a_day(cls, value: int) -> int:
        allowed = [hours for hours in range(1, 25) if 24 % hours == 0]
        if value not in allowed:
            raise ValueError(f"the hours must divide a day: {', '.join(map(str, allowed))}")
        return value
