"""What is the value of every field of one bar? In plain loops that share no code with the converter.

Instants are minutes after the first midnight. The property test of the fields looks for the smallest market in which
the converter and these loops differ.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from shared.datasets.candle import Candle


@dataclass(frozen=True)
class Facts:
    """What is known of one symbol beside its candles."""

    settled: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    """Settled at → (rate, hours)."""
    predicted: Mapping[int, tuple[float, float, int]] = field(default_factory=dict)
    """Known at → (rate, hours, minutes until it is due)."""
    ranked: Mapping[int, tuple[int, bool] | None] = field(default_factory=dict)
    """Ranked at → (rank, member); None: not among the ranked."""
    begins: Sequence[int] = ()
    """When the lives of the name began."""
    valued: Mapping[int, float] = field(default_factory=dict)
    """Known at → what a contract was worth."""

    def life_at(self, instant: int) -> int:
        """Return how many lives had begun before an instant."""
        return sum(begin < instant for begin in self.begins)

    def same_life(self, instant: int, close: int) -> bool:
        """Return whether what happened at an instant concerns the instrument of a bar that closes at `close`."""
        return max(1, self.life_at(instant + 1)) == max(1, self.life_at(close))


def _total(inside: Sequence[Candle], column: str) -> float:
    return float(np.sum([getattr(candle, column) for candle in inside]))


def _vwap(inside: Sequence[Candle]) -> float:
    volume = _total(inside, "volume")
    return _total(inside, "amount") / volume if volume > 0 else inside[-1].close


PRICES: Mapping[str, Callable[[Sequence[Candle]], float]] = {
    "open": lambda inside: inside[0].open,
    "high": lambda inside: max(candle.high for candle in inside),
    "low": lambda inside: min(candle.low for candle in inside),
    "close": lambda inside: inside[-1].close,
    "volume": lambda inside: _total(inside, "volume"),
    "amount": lambda inside: _total(inside, "amount"),
    "contracts": lambda inside: _total(inside, "contracts"),
    "vwap": _vwap,
}
"""Field of a whole bar → its value, from the candles inside."""


def plain_bar(
    candles: Mapping[int, Candle], absent: Collection[int], facts: Facts, begin: int, length: int
) -> dict[str, float]:
    """Return every field that the loops compute of the bar of `length` minutes that opens at `begin`."""
    inside = [candles[number] for number in range(begin, begin + length) if number in candles]
    prices = dict.fromkeys(PRICES, math.nan)
    if inside and _is_whole(candles, absent, facts, begin, length):
        prices = {name: formula(inside) for name, formula in PRICES.items()}
    state = _state(facts, begin, length) | {"coverage": len(inside) / length}
    if inside:
        return prices | state
    nothing = dict.fromkeys(state, math.nan)
    is_settled = any(begin <= time < begin + length for time in facts.settled)
    if is_settled and candles.keys() & range(begin // 1440 * 1440, begin):
        nothing["funding_paid"] = state["funding_paid"]
    return prices | nothing


def _is_whole(candles: Mapping[int, Candle], absent: Collection[int], facts: Facts, begin: int, length: int) -> bool:
    """Return whether no minute is lacking, and all candles are of one life."""
    minutes = range(begin, begin + length)
    lives = {facts.life_at(number + 1) for number in minutes if number in candles}
    return (len(lives) == 1 or length == 1) and all(number in candles or number in absent for number in minutes)


def _state(facts: Facts, begin: int, length: int) -> dict[str, float]:
    """Return the fields of a bar that has a candle, but for the prices."""
    close = begin + length
    last = max((time for time in facts.settled if time < close <= time + 7 * 1440), default=None)
    if last is not None and not facts.same_life(last, close):
        last = None
    ahead = max((time for time in facts.predicted if time < close), default=None)
    if ahead is not None and not (ahead + facts.predicted[ahead][2] >= close and close - ahead <= 480):
        ahead = None
    if ahead is not None and not facts.same_life(ahead, close):
        ahead = None
    worth = max((time for time in facts.valued if time < close), default=None)
    if worth is not None and facts.begins and not facts.same_life(worth, close):
        worth = None
    latest = max((time for time in facts.ranked if time <= begin), default=None)
    place = None if latest is None else facts.ranked[latest]
    rate, hours = facts.settled[last] if last is not None else (math.nan, math.nan)
    to_next = math.nan if last is None else last + 60 * hours - close
    expected, interval, due = facts.predicted[ahead] if ahead is not None else (math.nan, math.nan, 0)
    paid = [facts.settled[time][0] for time in sorted(facts.settled) if begin <= time < close]
    return {
        "funding_rate": rate,
        "funding_predicted": expected,
        "funding_paid": float(np.sum(paid)),
        "funding_interval": interval if interval > 0 else hours,
        "minutes_to_funding": ahead + due - close if ahead is not None else to_next if to_next >= 0 else math.nan,
        "funding_rank": math.nan if place is None else place[0],
        "in_universe": math.nan if latest is None else float(place is not None and place[1]),
        "life": float(facts.life_at(close)) if facts.begins else math.nan,
        "contract_value": math.nan if worth is None else facts.valued[worth],
    }


COMPUTED = frozenset(plain_bar({}, (), Facts(), 0, 1))
"""The fields that the loops compute."""
