"""Where a symbol ends for whoever holds it: it was delisted, its name went to another instrument, or its data stopped.

The market file `instruments/delisted.txt` has a row (symbol, begin, end) for each life that is over, `end`
being the open of the last minute that was traded. The field `$life` is a number that changes where a name is given to
another instrument. A dataset may have neither: then no end is known, and a symbol can only fall silent.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from qlib.data import D
from qlib.data.base import Feature
from qlib.data.cache import H
from qlib.data.ops import ElemOperator
from qlib.data.storage.file_storage import FileInstrumentStorage

MARKET = "delisted"
LIFE = "$life"

type Floats = npt.NDArray[np.float64]
type Bools = npt.NDArray[np.bool_]
type Places = npt.NDArray[np.int32]

_ALWAYS = (pd.Timestamp("1900-01-01"), pd.Timestamp("2200-01-01"))


def delistings(freq: str) -> dict[str, list[pd.Timestamp]]:
    """Return when each delisted symbol was traded last, once for each life that ended so; ascending.

    freq: any that the dataset has; Qlib asks for one. Raises `ValueError` where a time in the file makes no sense.
    """
    file = FileInstrumentStorage(market=MARKET, freq=freq).uri
    if not file.exists() or not file.stat().st_size:  # Qlib refuses a market without a file, and an empty file
        return {}
    spans = D.list_instruments(D.instruments(MARKET), *_ALWAYS, freq=freq)
    return {symbol: sorted(pd.Timestamp(end) for _, end in lives) for symbol, lives in spans.items()}


def changes(life: Floats) -> Bools:
    """Return at which bars (rows) `$life` differs from the number before it. What is NaN says nothing."""
    known = pd.DataFrame(life).ffill().shift(1).to_numpy()
    differs: Bools = (life != known) & ~np.isnan(life) & ~np.isnan(known)
    return differs


def last_true(marks: Bools) -> Places:
    """Return for each row the last row up to it at which a column is marked; -1 where there was none."""
    rows = np.arange(len(marks), dtype=np.int32)[:, None]
    last: Places = np.maximum.accumulate(np.where(marks, rows, np.int32(-1)), axis=0)
    return last


def silences(seen: Bools, bars: pd.DatetimeIndex, length: pd.Timedelta, patience: pd.Timedelta) -> Bools:
    """Return the bars with whose end nothing has been seen of a symbol for longer than `patience`.

    seen: bars x symbols. A bar is judged by itself and by those before it. What was never seen is silent since the
    first bar opened.
    """
    opens = bars.asi8
    ends = np.append((bars + length).asi8, opens[0])  # the last one is what -1 finds: never seen
    silent_for = opens[:, None] - ends[last_true(seen)]
    silent: Bools = ~seen & (silent_for >= patience.as_unit(bars.unit).value)
    return silent


class WithinLife(ElemOperator):
    """An expression that sees the life of each bar only: windows begin with it, and references beyond it are NaN.

    `WithinLife(Ref($open, -2)/Ref($open, -1)-1)` is no return from the last price of one instrument to the first one of
    another. Without known ends, it is the expression.
    """

    def _load_internal(self, instrument: str, start_index: int, end_index: int, *args: Any) -> pd.Series:
        begins = _begins(instrument, start_index, end_index, args[0])
        edges = [start_index, *begins, end_index + 1]
        parts = [self.feature.load(instrument, first, end - 1, *args) for first, end in pairwise(edges)]
        known = [part for part in parts if len(part)]
        return pd.concat(known) if len(known) > 1 else (known or parts)[0].copy(deep=False)


def _begins(instrument: str, start_index: int, end_index: int, freq: str) -> list[int]:
    """Return the places in the calendar at which another life begins, inside of a range."""
    life = Feature("life").load(instrument, start_index, end_index, freq)
    changed = life.index[changes(life.to_numpy(dtype="float64")[:, None])[:, 0]] if len(life) else []
    ended = _ended(freq).get(instrument.casefold(), ())
    return sorted({int(place) for place in [*changed, *ended] if start_index < place <= end_index})


def _ended(freq: str) -> dict[str, Sequence[int]]:
    """Return for each delisted symbol the places of the first bars after its ends; cached where Qlib caches markets."""
    key = f"{MARKET} {freq}"
    if key not in H["i"]:
        calendar = D.calendar(freq=freq)
        H["i"][key] = {
            symbol.casefold(): np.searchsorted(calendar, ends, side="right").tolist()
            for symbol, ends in delistings(freq).items()
        }
    ended: dict[str, Sequence[int]] = H["i"][key]
    return ended
