"""What do the stages of a conversion hand to one another? The goal, the plan of the run, the work of a symbol."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path

from services.converter.features.asof import AsOf
from services.converter.features.fields import BarRecipe
from services.converter.manifest import Manifest
from services.converter.memory import Memory, Written
from services.converter.qlib.damage import HeldBins, Published
from services.converter.qlib.store import QlibStore
from services.converter.raw.days import LedgerDay
from services.converter.raw.predictions import Predictions
from services.converter.stages.changes import RawChanges
from services.converter.stages.dirty import VALID_DAYS, Dirty
from shared.datasets.funding import PredictedFundingRate
from shared.storage.layout import Partition
from shared.storage.segments import RawRows

Left = Mapping[str, Mapping[date, str]]
"""Symbol → the days of it that could not be converted, each with the reason."""


@dataclass(frozen=True)
class Goal:
    """What is asked of a conversion: see `convert`."""

    until: datetime | None
    latest: datetime | None
    recipe: BarRecipe
    rebuild: bool
    history: bool
    every_file: bool


@dataclass(frozen=True)
class Build:
    """What is the same for all symbols of a conversion. origin, end: [from, until) of the calendar.

    published: what readers see before it.
    """

    data_dir: Path
    recipe: BarRecipe
    origin: datetime
    end: datetime
    published: Published

    @property
    def span(self) -> tuple[datetime, datetime]:
        """[from, until) of the calendar."""
        return self.origin, self.end


@dataclass(frozen=True)
class Run:
    """One conversion, decided: which days are computed, from which files, into which folder."""

    goal: Goal
    store: QlibStore
    """The folder that is written: the head, or a new version that no reader sees yet."""
    build: Build
    manifest: Manifest
    """What of the raw files is in Qlib already; empty where all of them are computed again."""
    changes: RawChanges
    dirty: Dirty
    held: Mapping[str, HeldBins]
    """Symbol → what its bins hold."""
    left: Left
    """What cannot be converted, as far as it is known before anything is computed."""
    left_out: int
    """Symbol days before the calendar's origin."""
    why_left_out: str
    """Why a version that takes them in could not be made, where that was tried."""
    later: list[Partition]
    """Raw files of days that have not begun."""
    memory: Memory
    """What is remembered of the last conversion."""


@dataclass(frozen=True)
class SymbolDays:
    """The days of a symbol to compute again, and all that is known of it beside its candles.

    days: ascending. known: but for the predictions, which are read where they are needed. ledger: of the days, and of
    those before them where fields look back. versions: signatures of the candle files that there are.
    """

    symbol: str
    days: list[date]
    known: AsOf
    ledger: Mapping[date, LedgerDay]
    versions: Mapping[date, str]
    rows: RawRows
    """Reads its candles."""
    held: HeldBins
    """What its bins hold. Where they are damaged `days` are all that there are, and the bins are replaced."""
    unknown: Mapping[date, str] = field(default_factory=dict)
    """Days of which something beside the candles cannot be true, each with the reason."""
    predictions: Predictions | None = None
    """Where they lie; None where there are none."""
    before: Written | None = None
    """What the bars of the running day were made of, where it is remembered."""

    def known_on(self, first: date, last: date) -> AsOf:
        """Return all that is known on some days, both inclusive. Raises `OSError`."""
        if self.predictions is None:
            return self.known
        back = timedelta(days=VALID_DAYS[PredictedFundingRate])
        return replace(self.known, predictions=self.predictions.between(first - back, last))

    def ledger_of(self, day: date) -> LedgerDay:
        """Return the ledger's record of a day."""
        return self.ledger.get(day, LedgerDay())
