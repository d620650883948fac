"""Settings of the writer."""

from typing import Annotated

from pydantic import Field

from shared.bus.heartbeat import Cadence
from shared.runtime.settings import RawSettings


class WriterSettings(RawSettings):
    """writer: makes rows durable."""

    flush_seconds: Annotated[
        float, Field(gt=0, le=300, description="Longest time that a row waits in memory before it is written")
    ] = 5.0
    flush_entries: Annotated[
        int, Field(ge=1, le=1_000_000, description="Most entries that wait in memory before a write")
    ] = 50_000
    compact_every: Annotated[
        float,
        Field(gt=0, le=1440, description="Minutes after which new rows are merged into the day files, at the latest"),
    ] = 60.0
    audit_pages_per_hour: Annotated[
        int,
        Field(
            ge=0, le=600, description="Pages of stored minutes an hour that the exchange is asked for again; 0: none"
        ),
    ] = 60
    writer_metrics_port: Annotated[int, Field(ge=0, le=65535, description="Port of the metrics; 0: none")] = 9103

    @property
    def cadence(self) -> Cadence:
        """Rows are written at the latest every FLUSH_SECONDS."""
        return Cadence(every_seconds=self.flush_seconds)
