"""Settings of the converter."""

import os
from datetime import time, timedelta
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from services.converter.features.bars import PartialBars
from services.converter.features.fields import BarRecipe
from shared.bus.heartbeat import Cadence
from shared.datasets.registry import BY_DATASET
from shared.grid import DAY
from shared.runtime.settings import QlibSettings
from shared.storage.qlib_layout import versions_of


class ConverterSettings(QlibSettings):
    """converter: turns raw days into Qlib's format."""

    convert_at: Annotated[
        time, Field(description="UTC time of the daily conversion, HH:MM; it waits for the writer's watermark")
    ] = time(0, 0)
    convert_every: Annotated[
        int,
        Field(
            ge=0,
            le=86_400,
            description="Least seconds between conversions, each as soon as more is stored; 0: once a day only",
        ),
    ] = 0
    patch_every: Annotated[
        int,
        Field(
            ge=0,
            le=86_400,
            description="Seconds between scans for late rows of days that are in Qlib; 0: the daily conversion",
        ),
    ] = 60
    partial_bars: Annotated[
        PartialBars,
        Field(
            description="Bars that lack minutes which the exchange may have: nan, or keep (from the minutes present)"
        ),
    ] = "nan"
    stock_fields: Annotated[
        bool, Field(description="Write factor and change, too; they make Qlib's stock rules apply under region cn")
    ] = False
    convert_processes: Annotated[
        int,
        Field(
            ge=0,
            le=1024,
            description="Processes that the symbols of many days are shared out to; 0: one per processor, at most",
        ),
    ] = 0
    converter_metrics_port: Annotated[int, Field(ge=0, le=65535, description="Port of the metrics; 0: none")] = 9104

    @property
    def recipe(self) -> BarRecipe:
        """What decides how bars are computed."""
        return BarRecipe(self.partial_bars, self.stock_fields)

    @property
    def processes(self) -> int:
        """Among how many processes the symbols are shared out at most."""
        return self.convert_processes or os.process_cpu_count() or 1

    @property
    def cadence(self) -> Cadence:
        """Bars are due every CONVERT_EVERY seconds; else once a day, those up to midnight at CONVERT_AT."""
        if self.convert_every:
            return Cadence(every_seconds=self.convert_every)
        after_midnight = timedelta(hours=self.convert_at.hour, minutes=self.convert_at.minute)
        return Cadence(every_seconds=DAY.total_seconds(), delay_seconds=after_midnight.total_seconds())

    @model_validator(mode="after")
    def _folders_apart(self) -> Self:
        """Refuse raw data inside the dataset, and the reverse: a version is moved, and deleted, as a whole."""
        data, qlib = self.data_dir.resolve(), self.qlib_dir.resolve()
        versions = versions_of(qlib)
        raw = {data / dataset for dataset in BY_DATASET}
        if data == qlib or raw & {qlib, *qlib.parents} or {qlib, versions} & set(data.parents):
            raise ValueError(
                f"QLIB_DIR={self.qlib_dir} and DATA_DIR={self.data_dir} lie one inside the other: "
                "name two folders side by side"
            )
        return self

    @field_validator("convert_at", mode="before")
    @classmethod
    def _hours_and_minutes(cls, value: object) -> object:
        if isinstance(value, str):
            hours, colon, minutes = value.partition(":")
            if not (colon and hours.isdigit() and minutes.isdigit() and int(hours) < 24 and int(minutes) < 60):  # noqa: PLR2004
                raise ValueError("must be HH:MM, 00:00 to 23:59, UTC")
            return time(int(hours), int(minutes))
        return value
