"""What is a row? Identity, times and bounds that every dataset declares; each dataset is declared once, beside this.

A declaration carries its stream, its dataset, what makes two copies the same, and whether it is converted for Qlib.
The codec (`shared.datasets.registry`), the Arrow schema (`shared.storage.parquet`) and the folder
(`shared.storage.layout`) are derived from it; what Qlib gets is declared in `services.converter.features.fields`.

Evolution rule: a new field gets a default; the type and the meaning of a field never change.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal, NamedTuple

import msgspec

from shared.symbol import Symbol

FLOAT32_SAFE = (1e-30, 1e30)
"""Between these, prices and sizes, their products, and the sums of a day survive as float32, which Qlib stores. The
smallest normal float32 is 1.2e-38, the largest 3.4e38; no price of any market comes near either bound."""


FUNDING_HOURS = (1, 2, 4, 6, 8)
"""Lengths of funding periods."""


class Bound(NamedTuple):
    """Which numbers of a field can be true: from least to most, or those that are named."""

    least: float
    most: float
    or_zero: bool = False
    only: tuple[int, ...] = ()

    def holds(self, value: float) -> bool:
        """Return whether a number can be true."""
        if self.only:
            return value in self.only
        return self.least <= value <= self.most or (self.or_zero and value == 0)


POSITIVE = Bound(*FLOAT32_SAFE)
"""Of prices and steps."""


AMOUNT = Bound(*FLOAT32_SAFE, or_zero=True)


RATE = Bound(-math.nextafter(1, 0), math.nextafter(1, 0))
"""Of funding rates: none is as large as the whole position."""


PERIOD = Bound(min(FUNDING_HOURS), max(FUNDING_HOURS), only=FUNDING_HOURS)


PLACE = Bound(1, 1_000_000)


SCORE = Bound(0, max(FUNDING_HOURS))
"""A rate of one hour that is brought to the longest period."""


Source = Literal["ws", "rest"]


RankBy = Literal["raw", "per_8h"]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a dataset: facts about one symbol, with an identity.

    `key` makes two copies the same; of two copies the one that is greater in `newest` (then in every other column, so
    that the order of arrival never decides) wins. All times are aware and UTC.
    """

    dataset: ClassVar[str]
    file_stem: ClassVar[str | None] = None
    """Name of a day's file; None: one file per symbol, named after it."""
    key: ClassVar[tuple[str, ...]]
    time: ClassVar[str]
    newest: ClassVar[str]
    converted: ClassVar[bool] = False
    """Whether the converter reads it: then no day is retired before it is in Qlib."""
    on_grid: ClassVar[bool] = False
    """Whether `time` is always the start of a minute."""
    retired: ClassVar[bool] = False
    """Whether RETENTION_DAYS applies. What is small and cannot be fetched again is kept for ever."""
    rare: ClassVar[bool] = False
    """Whether so few rows come that they go right into the day file; the others wait in segments to be merged."""
    bounds: ClassVar[Mapping[str, Bound]] = MappingProxyType({})
    """Field → which numbers can be true. The intake refuses others, and a file that holds one is damaged."""

    exchange: str
    symbol: Symbol


class Event(Row, frozen=True, kw_only=True):
    """A row that travels on its own."""

    stream: ClassVar[str]
    name: ClassVar[str]
