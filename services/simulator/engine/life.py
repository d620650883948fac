"""What happens to instruments in their life: a schedule of changes over a market that knows of none.

A change given at the start is part of the market. One that is added later lies in the future, so that whatever was
shown of the past stays true; only a correction changes a minute that has been shown already: that is its point.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Literal, NamedTuple

import msgspec

from services.simulator.engine.clock import instant_ms
from services.simulator.engine.maintenance import Window, halts
from services.simulator.engine.market import (
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
from services.simulator.engine.synthetic import SWAP_NAME, SyntheticMarket

HOURS = (1, 2, 4, 8)
"""The settlement intervals that there are."""
MOST_DECIMALS = 16
MOST_CONTRACT_DECIMALS = 12
"""Of a contract value below 1, and digits after the 1 of one above."""
COARSER_BY = 2
"""Decimals that a tick size may lose: a price keeps at least three digits."""
NOTICE_MS = HOUR_MS
"""How far ahead listings, delistings and tick sizes are announced, unless it is said otherwise."""


class BadChangeError(ValueError):
    """A change that the market cannot make; the message says why."""


_SPELLED = {"inst_id": "instId", "tick": "tickSz", "contract_value": "ctVal"}


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename=_SPELLED):
    """One change in the life of an instrument, as written in JSON.

    A name that was delisted may be listed again: that is another instrument, with figures of its own. A rebase is a
    suspension with the state `rebase`, after which the same contract is worth `ctVal`: prices are multiplied, and
    amounts of coins divided, by what the old value is to the new one, so that every turnover stays what it was.
    """

    kind: Literal["list", "suspend", "resume", "delist", "tick", "interval", "rebase"]
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
    contract_value: str | None = None
    """list, rebase: what a contract is worth from then on, a power of ten; a listing has one of its own by default."""
    until: int | str | None = None
    """rebase: when trading is taken up again; None: with a resume."""


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
    _check_contract_value(change)
    if change.announce is not None and change.kind not in {"list", "delist", "tick"}:
        raise BadChangeError(f"{change.kind} is not announced: leave `announce` out")
    if _instant(change.announce if change.announce is not None else 0) > _instant(change.at):
        raise BadChangeError("`announce` comes after `at`")


def _check_contract_value(change: Change) -> None:
    if change.kind == "rebase" and change.contract_value is None:
        raise BadChangeError("rebase needs `ctVal`, what a contract is worth after it")
    if change.contract_value is not None:
        if change.kind not in {"list", "rebase"}:
            raise BadChangeError("`ctVal` belongs to list and rebase")
        _exponent(change.contract_value)
    if change.until is not None:
        if change.kind != "rebase":
            raise BadChangeError("`until` belongs to rebase; a suspension ends with a resume")
        if _instant(change.until) <= _instant(change.at):
            raise BadChangeError("`until` does not come after `at`")


def _instant(at: int | str) -> int:
    try:
        return instant_ms(at)
    except ValueError as error:
        raise BadChangeError(str(error)) from error


def _decimals(tick: str) -> int:
    if not re.fullmatch(rf"1|0\.0{{0,{MOST_DECIMALS - 1}}}1", tick):
        raise BadChangeError(f"`tickSz` must be a power of ten up to 1, such as 0.01, not {tick!r}")
    return len(tick.partition(".")[2])


def _exponent(contract_value: str) -> int:
    most = MOST_CONTRACT_DECIMALS
    if not re.fullmatch(rf"10{{0,{most}}}|0\.0{{0,{most - 1}}}1", contract_value):
        raise BadChangeError(f"`ctVal` must be a power of ten, such as 0.01 or 1000, not {contract_value!r}")
    return Decimal(contract_value).adjusted()


class _Times(NamedTuple):
    """When a change takes effect and when it is announced."""

    at_ms: int
    announce_ms: int


class _Part(NamedTuple):
    """A span [begin, end) in which the figures of a name are those of one series of the market."""

    series: str
    begin_ms: int
    end_ms: int
    delist_ms: int
    """When it is delisted by a change; NEVER_MS: it is not."""


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
            instrument = self._known(change.inst_id)
            if at_ms < instrument.since_ms:
                raise BadChangeError(f"{change.inst_id} is another contract from {instrument.since_ms} on already")
            self._instruments[change.inst_id] = self._after(instrument, change, times)
        self._changed.add(change.inst_id)
        self.version += 1

    def _list(self, change: Change, times: _Times) -> None:
        list_ms = _ceil_minute(times.at_ms)
        announce_ms = min(times.announce_ms, list_ms - DETAILS_MS)
        before = self._instruments.get(change.inst_id)
        series = change.inst_id
        if before is not None:
            announce_ms = _announced_again(before, change, list_ms, announce_ms)
            # A name that is no coin's: another asset, with a price and an interval of its own.
            series = f"{len(before.all_under_its_name()) + 1} {change.inst_id}"
        exponent = None if change.contract_value is None else _exponent(change.contract_value)
        fresh = self._generated(change).list_instrument(series, list_ms, announce_ms, exponent)
        self._instruments[change.inst_id] = replace(
            fresh, inst_id=change.inst_id, series=series, earlier=before, since_ms=announce_ms if before else 0
        )

    def _after(self, instrument: Instrument, change: Change, times: _Times) -> Instrument:
        if change.kind == "suspend":
            stopped = Suspension(times.at_ms, NEVER_MS, change.state or "suspend")
            return replace(instrument, suspensions=(*_closed(instrument, change), stopped))
        if change.kind == "resume":
            return _resumed(instrument, times.at_ms)
        if change.kind == "rebase":
            self._generated(change)
            stopped = _rebase(instrument, change, times.at_ms)
            instrument = replace(instrument, suspensions=(*_closed(instrument, change), stopped))
            return instrument if change.until is None else _resumed(instrument, _instant(change.until))
        if change.kind == "delist":
            return replace(instrument, delist_ms=times.at_ms, delist_notice_ms=times.announce_ms)
        if change.kind == "tick":
            return _with_tick(instrument, _decimals(change.tick or ""), times)
        try:
            self._generated(change).change_interval(_series(instrument), times.at_ms, (change.hours or 0) * HOUR_MS)
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
        rows = [
            row
            for part in self._parts(inst_id, begin_ms, end_ms)
            for row in self._base.candles(part.series, part.begin_ms, part.end_ms)
        ]
        return self._as_lived(inst_id, rows, begin_ms, end_ms)

    def newest_candles(self, inst_id: str, begin_ms: int, end_ms: int, limit: int) -> list[Candle]:
        """Return the last `limit` minutes in [begin, end) that exist."""
        found: list[Candle] = []
        while len(found) < limit:
            rows = self._newest_of_base(inst_id, begin_ms, end_ms, limit - len(found))
            if not rows:
                break
            found = self._as_lived(inst_id, rows, rows[0].open_ms, end_ms) + found
            end_ms = rows[0].open_ms
        return found

    def settlements(self, inst_id: str, begin_ms: int, end_ms: int) -> list[Settlement]:
        """Return the settlements in [begin, end) and before the delisting."""
        found: list[Settlement] = []
        for part in self._parts(inst_id, begin_ms, end_ms):
            found += self._base.settlements(part.series, part.begin_ms, min(part.end_ms, part.delist_ms))
        return found

    def funding_period(self, inst_id: str, at_ms: int) -> FundingPeriod:
        """Return the period around an instant; a delisting settles at 0."""
        (part,) = self._parts(inst_id, at_ms, at_ms + 1)
        period = self._base.funding_period(part.series, at_ms)
        return period if period.funding_ms < part.delist_ms else period._replace(upcoming_rate=0.0)

    def _parts(self, inst_id: str, begin_ms: int, end_ms: int) -> Iterator[_Part]:
        """Yield where the figures of a name in [begin, end) come from, oldest first."""
        until_ms = NEVER_MS
        found = []
        for instrument in reversed(self._instruments[inst_id].all_under_its_name()):
            # What a recording has after its own end is left as it is.
            delist_ms = instrument.delist_ms if inst_id in self._changed else None
            begin = begin_ms if instrument.earlier is None else max(begin_ms, instrument.since_ms)
            end = min(end_ms, until_ms)
            if begin < end:
                found.append(_Part(_series(instrument), begin, end, NEVER_MS if delist_ms is None else delist_ms))
            until_ms = instrument.since_ms
        return reversed(found)

    def _newest_of_base(self, inst_id: str, begin_ms: int, end_ms: int, limit: int) -> list[Candle]:
        """Return the last minutes of what the name stood for last in [begin, end), at most `limit`."""
        for part in reversed([*self._parts(inst_id, begin_ms, end_ms)]):
            if rows := self._base.newest_candles(part.series, part.begin_ms, part.end_ms, limit):
                return rows
        return []

    def _as_lived(self, inst_id: str, rows: list[Candle], begin_ms: int, end_ms: int) -> list[Candle]:
        for window in halts(self._windows, begin_ms, end_ms):
            rows = [row for row in rows if not window.begin_ms <= row.open_ms < window.end_ms]
        if inst_id in self._changed:
            instrument = self._instruments[inst_id]
            traded = [row for row in rows if _is_traded(instrument, row.open_ms)]
            rows = [_on_tick(_in_its_unit(row, instrument), instrument) for row in traded]
        corrected = self._corrected.get(inst_id)
        return [corrected.get(row.open_ms, row) for row in rows] if corrected else rows


def _closed(instrument: Instrument, change: Change) -> tuple[Suspension, ...]:
    """Return its suspensions, the last of which must be over before there is another."""
    if instrument.suspensions and instrument.suspensions[-1].end_ms > _instant(change.at):
        raise BadChangeError(f"{change.inst_id} is suspended already: resume it first")
    return instrument.suspensions


def _resumed(instrument: Instrument, at_ms: int) -> Instrument:
    *before, last = instrument.suspensions or (Suspension(NEVER_MS, 0),)
    if last.end_ms < NEVER_MS or last.begin_ms >= at_ms:
        raise BadChangeError(f"{instrument.inst_id} is not suspended")
    if last.contract_exponent is None:
        return replace(instrument, suspensions=(*before, last._replace(end_ms=at_ms)))
    at_ms = _ceil_minute(at_ms)  # no minute has prices of both
    stopped = replace(instrument, suspensions=(*before, last._replace(end_ms=at_ms)))
    return _redenominated(stopped, last.contract_exponent, at_ms)


def _rebase(instrument: Instrument, change: Change, at_ms: int) -> Suspension:
    """Return the suspension that a rebase begins with."""
    exponent = _exponent(change.contract_value or "")
    if instrument.inverse:
        raise BadChangeError(f"{change.inst_id} is inverse: its contract is worth an amount of quote currency")
    if instrument.delist_ms is not None and instrument.delist_ms <= at_ms:
        raise BadChangeError(f"{change.inst_id} is delisted by then")
    if exponent == instrument.contract_exponent:
        raise BadChangeError(f"`ctVal` of {change.inst_id} is {change.contract_value} already")
    if instrument.price_decimals - instrument.contract_exponent + exponent > MOST_DECIMALS:
        raise BadChangeError(f"`ctVal`: a price of {change.inst_id} would need more than {MOST_DECIMALS} decimals")
    return Suspension(at_ms, NEVER_MS, "rebase", exponent)


def _redenominated(instrument: Instrument, exponent: int, since_ms: int) -> Instrument:
    """Return the instrument with another contract value; the value of a contract in quote currency stays."""
    shift = instrument.contract_exponent - exponent
    steps = [step._replace(decimals=max(0, step.decimals - shift)) for step in instrument.tick_changes]
    return replace(
        instrument,
        earlier=instrument,
        since_ms=since_ms,
        contract_exponent=exponent,
        scale_exponent=instrument.scale_exponent + shift,
        price_decimals=max(0, instrument.price_decimals - shift),
        tick_changes=tuple(steps),
        suspensions=(),
    )


def _announced_again(before: Instrument, change: Change, list_ms: int, announce_ms: int) -> int:
    """Return when another listing of a name is announced: not before the one before is over."""
    if before.delist_ms is None or list_ms < before.since_ms:
        raise BadChangeError(f"{change.inst_id} is listed already")
    if list_ms - DETAILS_MS < before.delist_ms:
        raise BadChangeError(f"{change.inst_id} is listed until {before.delist_ms}, and again 5 minutes later at least")
    if change.announce is not None and _instant(change.announce) < before.delist_ms:
        raise BadChangeError(f"`announce`: {change.inst_id} is still listed then, until {before.delist_ms}")
    return max(announce_ms, before.delist_ms)


def _ceil_minute(at_ms: int) -> int:
    return -(-at_ms // MINUTE_MS) * MINUTE_MS


def _series(instrument: Instrument) -> str:
    return instrument.series or instrument.inst_id


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
    delist_ms = instrument.as_of(open_ms).delist_ms
    gone = delist_ms is not None and open_ms >= delist_ms
    return not gone and not instrument.is_suspended(open_ms)


def _in_its_unit(candle: Candle, instrument: Instrument) -> Candle:
    """Return a minute of its market in the unit of its time."""
    scale = instrument.as_of(candle.open_ms).scale_exponent
    if not scale:
        return candle
    first, high, low, last = (_scaled(price, scale) for price in candle[1:5])
    coins = _scaled(candle.base_volume, -scale)
    return candle._replace(open=first, high=high, low=low, close=last, base_volume=coins)


def _scaled(number: float, exponent: int) -> float:
    """Return number * 10**exponent as the decimal that it is: a product of floats would be off by a bit."""
    return float(Decimal(repr(number)).scaleb(exponent))


def _on_tick(candle: Candle, instrument: Instrument) -> Candle:
    """Return a minute with its prices on the step of its time."""
    decimals = instrument.decimals_at(candle.open_ms)
    if decimals >= instrument.as_of(candle.open_ms).price_decimals:
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
