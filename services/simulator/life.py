"""What happens to instruments in their life: a schedule of changes over a market that knows of none.

A change given at the start is part of the market. One that is added later lies in the future, so that whatever was
told of the past stays true; only a correction changes a minute that has been told already, since that is its point.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import msgspec

from services.simulator.fault import instant_ms
from services.simulator.maintenance import Window, halts
from services.simulator.market import (
    DETAILS_MS,
    HOUR_MS,
    MINUTE_MS,
    NEVER_MS,
    Candle,
    FundingPeriod,
    Instrument,
    Market,
    Settlement,
    StoppedState,
    Suspension,
    TickChange,
)
from services.simulator.synthetic import SWAP_NAME, SyntheticMarket

HOURS = (1, 2, 4, 8)
"""The settlement intervals that there are."""
MOST_DECIMALS = 16
COARSER_BY = 2
"""Decimals that a tick size may lose: a price keeps at least three digits."""
NOTICE_MS = HOUR_MS
"""How far ahead listings, delistings and tick sizes are announced, unless it is said otherwise."""


class BadChangeError(ValueError):
    """A change that the market cannot make; the message says why."""


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"inst_id": "instId", "tick": "tickSz"}):
    """One change in the life of an instrument, as written in JSON."""

    kind: Literal["list", "suspend", "resume", "delist", "tick", "interval"]
    at: int | str
    """When it takes effect: simulated time, ms or ISO."""
    inst_id: str
    announce: int | str | None = None
    """list, delist, tick: when it is announced; None: an hour before."""
    tick: str | None = None
    """tick: the new price step, a power of ten."""
    state: StoppedState | None = None
    """suspend: what its state reads meanwhile; None: suspend."""
    hours: int | None = None
    """interval: the new settlement interval; it begins with the next settlement."""


def read_changes(text: bytes) -> list[Change]:
    """Read one change or a list of them. Raises BadChangeError."""
    try:
        decoded = msgspec.json.decode(text, type=list[Change] | Change)
    except msgspec.MsgspecError as error:
        raise BadChangeError(f"not a change: {error}") from error
    changes = decoded if isinstance(decoded, list) else [decoded]
    for change in changes:
        _check(change)
    return changes


def _check(change: Change) -> None:
    if change.kind == "list" and not re.fullmatch(SWAP_NAME, change.inst_id):
        raise BadChangeError(f"a listing is called like NEW-USDT-SWAP, not {change.inst_id!r}")
    if (change.tick is not None) != (change.kind == "tick"):
        raise BadChangeError("`tickSz` belongs to tick, and tick needs it")
    if change.tick is not None:
        _decimals(change.tick)
    if change.state is not None and change.kind != "suspend":
        raise BadChangeError("`state` belongs to suspend")
    if (change.hours is not None) != (change.kind == "interval"):
        raise BadChangeError("`hours` belongs to interval, and interval needs it")
    if change.hours is not None and change.hours not in HOURS:
        raise BadChangeError(f"an interval has 1, 2, 4 or 8 hours, not {change.hours}")
    if change.announce is not None and change.kind not in {"list", "delist", "tick"}:
        raise BadChangeError(f"{change.kind} is not announced: leave `announce` out")
    if _instant(change.announce if change.announce is not None else 0) > _instant(change.at):
        raise BadChangeError("`announce` comes after `at`")


def _instant(at: int | str) -> int:
    try:
        return instant_ms(at)
    except ValueError as error:
        raise BadChangeError(str(error)) from error


def _decimals(tick: str) -> int:
    if not re.fullmatch(rf"1|0\.0{{0,{MOST_DECIMALS - 1}}}1", tick):
        raise BadChangeError(f"`tickSz` must be a power of ten up to 1, such as 0.01, not {tick!r}")
    return len(tick.partition(".")[2])


class _Times(NamedTuple):
    """When a change takes effect and when it is told."""

    at_ms: int
    announce_ms: int


class LivingMarket:
    """A market whose instruments change, with maintenance during which nothing is traded, and with corrections."""

    def __init__(self, base: Market, windows: Sequence[Window] = ()) -> None:
        self._base = base
        self._windows = windows
        self._instruments = dict(base.instruments)
        self._changed: set[str] = set()
        self._corrected: dict[str, dict[int, Candle]] = {}
        self.version = 0
        """Goes up with every change."""

    # Changes

    def change(self, change: Change, now_ms: int | None = None) -> None:
        """Make a change part of the market; with `now_ms`, only one that lies in the future. Raises BadChangeError."""
        at_ms = _instant(change.at)
        if now_ms is not None and at_ms <= now_ms:
            raise BadChangeError(f"`at` lies in the past: {change.at}, it is {now_ms}")
        announce_ms = at_ms - NOTICE_MS if change.announce is None else _instant(change.announce)
        times = _Times(at_ms, announce_ms if now_ms is None else max(now_ms, announce_ms))
        if change.kind == "list":
            self._list(change, times)
        else:
            self._instruments[change.inst_id] = self._after(self._known(change.inst_id), change, times)
        self._changed.add(change.inst_id)
        self.version += 1

    def _list(self, change: Change, times: _Times) -> None:
        if change.inst_id in self._instruments:
            raise BadChangeError(f"{change.inst_id} is listed already")
        list_ms = -(-times.at_ms // MINUTE_MS) * MINUTE_MS
        self._generated(change).list_instrument(change.inst_id, list_ms, min(times.announce_ms, list_ms - DETAILS_MS))
        self._instruments[change.inst_id] = self._base.instruments[change.inst_id]

    def _after(self, instrument: Instrument, change: Change, times: _Times) -> Instrument:
        if change.kind == "suspend":
            stopped = Suspension(times.at_ms, NEVER_MS, change.state or "suspend")
            return replace(instrument, suspensions=(*_closed(instrument, change), stopped))
        if change.kind == "resume":
            return replace(instrument, suspensions=_resumed(instrument, times.at_ms))
        if change.kind == "delist":
            return replace(instrument, delist_ms=times.at_ms, delist_notice_ms=times.announce_ms)
        if change.kind == "tick":
            return _with_tick(instrument, _decimals(change.tick or ""), times)
        try:
            self._generated(change).change_interval(change.inst_id, times.at_ms, (change.hours or 0) * HOUR_MS)
        except ValueError as error:
            raise BadChangeError(str(error)) from error
        return instrument

    def _known(self, inst_id: str) -> Instrument:
        if inst_id not in self._instruments:
            raise BadChangeError(f"no instrument is called {inst_id!r}")
        return self._instruments[inst_id]

    def _generated(self, change: Change) -> SyntheticMarket:
        if not isinstance(self._base, SyntheticMarket):
            raise BadChangeError(f"a recording has no {change.kind}: only a generated market can make one up")
        return self._base

    def correct(self, inst_id: str, open_ms: int) -> bool:
        """Give a closed minute other figures, for good; False where there is no such minute."""
        rows = self.candles(inst_id, open_ms, open_ms + 1)
        if not rows or self._instruments[inst_id].state(open_ms) != "live":
            return False
        self._corrected.setdefault(inst_id, {})[open_ms] = _otherwise(rows[0], self._instruments[inst_id])
        return True

    # The market

    @property
    def instruments(self) -> Mapping[str, Instrument]:
        """Every instrument, with all that is known to happen to it."""
        return self._instruments

    @property
    def end_ms(self) -> int | None:
        """The last recorded open time, None for a market that never ends."""
        return self._base.end_ms

    def candles(self, inst_id: str, begin_ms: int, end_ms: int) -> list[Candle]:
        """Return the minutes in [begin, end) that exist, as they stand."""
        return self._as_lived(inst_id, self._base.candles(inst_id, begin_ms, end_ms), begin_ms, end_ms)

    def newest_candles(self, inst_id: str, begin_ms: int, end_ms: int, limit: int) -> list[Candle]:
        """Return the last `limit` minutes in [begin, end) that exist."""
        found: list[Candle] = []
        while len(found) < limit:
            rows = self._base.newest_candles(inst_id, begin_ms, end_ms, limit - len(found))
            if not rows:
                break
            found = self._as_lived(inst_id, rows, rows[0].open_ms, end_ms) + found
            end_ms = rows[0].open_ms
        return found

    def settlements(self, inst_id: str, begin_ms: int, end_ms: int) -> list[Settlement]:
        """Return the settlements in [begin, end) and before the delisting."""
        delist_ms = self._delisted_ms(inst_id)
        return self._base.settlements(inst_id, begin_ms, end_ms if delist_ms is None else min(end_ms, delist_ms))

    def funding_period(self, inst_id: str, at_ms: int) -> FundingPeriod:
        """Return the period around an instant; a delisting settles at 0."""
        period = self._base.funding_period(inst_id, at_ms)
        delist_ms = self._delisted_ms(inst_id)
        return period if delist_ms is None or period.funding_ms < delist_ms else period._replace(upcoming_rate=0.0)

    def _delisted_ms(self, inst_id: str) -> int | None:
        """Return when a change delists it; what a recording has after its own end is left as it is."""
        return self._instruments[inst_id].delist_ms if inst_id in self._changed else None

    def _as_lived(self, inst_id: str, rows: list[Candle], begin_ms: int, end_ms: int) -> list[Candle]:
        for window in halts(self._windows, begin_ms, end_ms):
            rows = [row for row in rows if not window.begin_ms <= row.open_ms < window.end_ms]
        if inst_id in self._changed:
            instrument = self._instruments[inst_id]
            rows = [_on_tick(row, instrument) for row in rows if _is_traded(instrument, row.open_ms)]
        corrected = self._corrected.get(inst_id)
        return [corrected.get(row.open_ms, row) for row in rows] if corrected else rows


def _closed(instrument: Instrument, change: Change) -> tuple[Suspension, ...]:
    """Return its suspensions, the last of which must be over before there is another."""
    if instrument.suspensions and instrument.suspensions[-1].end_ms > _instant(change.at):
        raise BadChangeError(f"{change.inst_id} is suspended already: resume it first")
    return instrument.suspensions


def _resumed(instrument: Instrument, at_ms: int) -> tuple[Suspension, ...]:
    *before, last = instrument.suspensions or (Suspension(NEVER_MS, 0),)
    if last.end_ms < NEVER_MS or last.begin_ms >= at_ms:
        raise BadChangeError(f"{instrument.inst_id} is not suspended")
    return (*before, last._replace(end_ms=at_ms))


def _with_tick(instrument: Instrument, decimals: int, times: _Times) -> Instrument:
    if instrument.tick_changes and instrument.tick_changes[-1].at_ms >= times.at_ms:
        raise BadChangeError(f"{instrument.inst_id} changes its tick size later already; give them in order")
    if decimals < instrument.price_decimals - COARSER_BY:
        raise BadChangeError(
            f"tickSz: {instrument.inst_id} needs at least {instrument.price_decimals - COARSER_BY} decimals"
        )
    change = TickChange(times.announce_ms, times.at_ms, decimals)
    return replace(instrument, tick_changes=(*instrument.tick_changes, change))


def _is_traded(instrument: Instrument, open_ms: int) -> bool:
    gone = instrument.delist_ms is not None and open_ms >= instrument.delist_ms
    return not gone and not instrument.is_suspended(open_ms)


def _on_tick(candle: Candle, instrument: Instrument) -> Candle:
    """Return a minute with its prices on the step of its time."""
    decimals = instrument.decimals_at(candle.open_ms)
    if decimals >= instrument.price_decimals:
        return candle
    first, high, low, last = (round(price, decimals) for price in candle[1:5])
    return candle._replace(open=first, high=high, low=low, close=last)


def _otherwise(candle: Candle, instrument: Instrument) -> Candle:
    """Return a minute with twice the volume and a close that is a tick above the former high."""
    decimals = instrument.decimals_at(candle.open_ms)
    above = round(candle.high + math.pow(10, -decimals), decimals)
    return candle._replace(
        high=above, close=above, base_volume=candle.base_volume * 2, quote_volume=candle.quote_volume * 2
    )
