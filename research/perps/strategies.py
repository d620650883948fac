"""Strategies that go long and short."""

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd
from qlib.backtest.decision import Order, TradeDecisionWO
from qlib.contrib.strategy.signal_strategy import BaseSignalStrategy
from qlib.data import D
from qlib.utils.time import Freq

from perps.arguments import check_names, names_of, number, signal_of, whole
from perps.exchange import PerpExchange

#: Hours between two settlements where the dataset does not know; what most instruments have.
_USUAL_INTERVAL = 8.0

_KNOWN = {
    "predicted": "$funding_predicted",
    "settled": "$funding_rate",
    "interval": "$funding_interval",
    "wait": "$minutes_to_funding",
    "close": "$close",
}
"""What a decision about funding needs to know of a symbol at the close of a bar."""


def _check(strategy: BaseSignalStrategy, given: Collection[str], allowed: Collection[str]) -> None:
    check_names(type(strategy).__name__, given, allowed, names_of(PerpExchange))


class LongShortTopK(BaseSignalStrategy):
    """Long the k symbols with the highest signal, short the k with the lowest, in equal weights.

    What is decided when a bar opens depends on nothing that happened after: the signal of the bar before, the equity at
    its close, and amounts by the last known prices. Half of the gross notional is long and half short.
    A symbol without a signal is not held. With fewer than 2 k symbols, both sides have half of them.

    Parameters
    ----------
    topk: symbols a side
    signal: a Series or frame (datetime, instrument), a model with its dataset, or "<PRED>" in a workflow
    leverage: gross notional / equity. The exchange's cap comes on top of it
    n_drop: symbols a side that may be replaced a bar, the worst by the best; None: as many as the signal says
    tolerance: a position that stays is left alone while its notional is within this share of its target

    Takes the arguments of Qlib's BaseSignalStrategy beside these, except `risk_degree`, which is `leverage` here.

    Raises ValueError for a parameter that makes no sense, with its name, its value and what is allowed; TypeError for
    one that does not exist.
    """

    def __init__(
        self,
        *,
        topk: int,
        signal: Any = None,
        leverage: float = 1.0,
        n_drop: int | None = None,
        tolerance: float = 0.0,
        **kwargs: Any,
    ) -> None:
        _check(self, kwargs, names_of(BaseSignalStrategy) - {"risk_degree"})
        self.topk = whole("topk", topk, least=1)
        self.leverage = number("leverage", leverage, over=0)
        self.n_drop = None if n_drop is None else whole("n_drop", n_drop, least=1)
        self.tolerance = number("tolerance", tolerance, least=0)
        self._ranks = signal is not None or kwargs.get("model") is not None
        no_signal = pd.Series(
            dtype="float64", index=pd.MultiIndex.from_arrays([[], []], names=["datetime", "instrument"])
        )
        super().__init__(signal=no_signal if signal is None else signal_of(signal), risk_degree=leverage, **kwargs)

    def generate_trade_decision(self, execute_result: list[Any] | None = None) -> TradeDecisionWO:  # noqa: ARG002 - Qlib's
        """Decide on the orders of a bar."""
        scores = self._scores()
        if scores is None:
            return TradeDecisionWO([], self)
        held = self.trade_position.get_stock_amount_dict()
        longs, shorts = self.choose(scores, held)
        return TradeDecisionWO(self._orders(self._targets(longs, shorts), held), self)

    def choose(self, scores: pd.Series, held: dict[str, float]) -> tuple[list[str], list[str]]:
        """Return the symbols to be long and to be short.

        `scores`: symbol → signal; `held`: symbol → signed amount. Equal signals are in the order of the symbols' names.
        """
        ranked = scores.dropna().sort_index().sort_values(ascending=False, kind="stable").index.tolist()
        size = min(self.topk, len(ranked) // 2)
        if self.n_drop is None:
            return ranked[:size], ranked[len(ranked) - size :]
        kept = [[s for s in ranked if held.get(s, 0.0) * side > 0] for side in (1, -1)]
        # The best of what is short may be long, too: else no symbol would be traded once every one is held.
        stays_short = kept[1][self.n_drop :]
        free = [s for s in ranked if s not in kept[0] and s not in stays_short]
        longs = _replace(kept[0], free, size, self.n_drop, ranked)
        short = [s for s in kept[1] if s not in longs]
        free = [s for s in ranked if s not in longs and s not in short]
        left = max(self.n_drop - (len(kept[1]) - len(short)), 0)  # who went over to the other side was replaced, too
        return longs, _replace(short[::-1], free[::-1], size, left, ranked[::-1])

    def _scores(self) -> pd.Series | None:
        if not self._ranks:
            signal_of(None)
        calendar = self.trade_calendar
        if calendar.start_index + calendar.get_trade_step() == 0:
            return None  # no bar before; Qlib would take the calendar's last one
        signal = self.signal.get_signal(*calendar.get_step_time(shift=1))
        return signal.iloc[:, 0] if isinstance(signal, pd.DataFrame) else signal

    def _targets(self, longs: list[str], shorts: list[str]) -> dict[str, float]:
        """Return symbol → signed notional."""
        equity = max(self.trade_position.calculate_value(), 0.0)
        sides = ((longs, 1.0), (shorts, -1.0))
        return {s: sign * equity * self.leverage / 2 / len(side) for side, sign in sides for s in side}

    def _orders(self, targets: dict[str, float], held: dict[str, float]) -> list[Order]:
        bar, end = self.trade_calendar.get_step_time()
        orders = []
        for symbol in sorted(targets.keys() | held.keys()):
            change = self._change(symbol, targets.get(symbol, 0.0), held.get(symbol, 0.0), bar)
            if change:
                orders.append(Order(symbol, abs(change), Order.BUY if change > 0 else Order.SELL, bar, end))
        return orders

    def _change(self, symbol: str, target: float, amount: float, bar: pd.Timestamp) -> float:
        if target == 0:
            return -amount
        price = self.trade_exchange.last_close(bar, symbol)
        if price is None:
            return 0.0
        if amount * target > 0 and abs(amount * price - target) <= self.tolerance * abs(target):
            return 0.0
        return float(target / price - amount)


def _replace(kept: list[str], free: list[str], size: int, n_drop: int, ranked: list[str]) -> list[str]:
    """Return a side: what is kept of it, with at most `n_drop` of its worst replaced by better ones that are free.

    All lists are the best first.
    """
    candidates = free[: max(size - len(kept), 0) + n_drop]
    order = {symbol: place for place, symbol in enumerate(ranked)}
    pool = sorted([*kept, *candidates], key=order.__getitem__)
    worst = pool[len(pool) - min(n_drop, max(len(pool) - size, 0)) :]
    stay = [symbol for symbol in kept if symbol not in worst][:size]
    return stay + candidates[: size - len(stay)]


_OF_CARRY = names_of(LongShortTopK) - {"signal", "model", "dataset", "risk_degree"}
"""What FundingCarry passes on: its signal is the funding."""


class FundingCarry(LongShortTopK):
    """Earn funding: short the symbols with the highest expected funding, long those with the lowest.

    Expected is what the exchange predicted for the next settlement (`$funding_predicted`), and where no prediction was
    recorded, the last settled rate (`$funding_rate`), both as known at the close of the bar before.

    Parameters
    ----------
    topk, leverage, n_drop, tolerance: see LongShortTopK
    per_hour: compare rates by the hour, as a rate settled every 4 hours is paid twice as often as one every 8
        (`$funding_interval`; 8 where it is not known); False compares the rates of one settlement
    where: an expression of Qlib's; only symbols are held for which it was above 0 at that close, such as "$in_universe"
    """

    def __init__(self, *, topk: int, per_hour: bool = True, where: str | None = None, **kwargs: Any) -> None:
        _check(self, kwargs, _OF_CARRY)
        super().__init__(topk=topk, **kwargs)
        self.per_hour = per_hour
        self.where = where
        self._expected: pd.DataFrame | None = None

    def reset(self, *args: Any, **kwargs: Any) -> None:
        """Begin a backtest: forget what was known for another one."""
        super().reset(*args, **kwargs)
        self._expected = None

    def _scores(self) -> pd.Series | None:
        calendar = self.trade_calendar
        if calendar.start_index + calendar.get_trade_step() == 0:
            return None
        if self._expected is None:
            self._expected = self._load()
        known, _ = calendar.get_step_time(shift=1)
        return -self._expected.loc[known] if known in self._expected.index else None

    def _load(self) -> pd.DataFrame:
        """Return the expected funding: bars x symbols, NaN where a symbol may not be held."""
        return self._expected_of(self._read())

    def _read(self) -> pd.DataFrame:
        """Return what is known of each symbol at the close of each bar, from the bar before the first one on."""
        calendar = self.trade_calendar
        begin, _ = calendar.get_step_time(0, shift=1 if calendar.start_index > 0 else 0)
        end, _ = calendar.get_step_time(calendar.get_trade_len() - 1)
        names = dict(_KNOWN) | ({"where": self.where} if self.where else {})
        codes, freq = self.trade_exchange.codes, calendar.get_freq()
        frame = D.features(codes, list(names.values()), begin, end, freq=freq).astype("float64")
        return frame.set_axis(list(names), axis="columns")

    def _expected_of(self, frame: pd.DataFrame) -> pd.DataFrame:
        expected = frame["predicted"].fillna(frame["settled"])
        if self.per_hour:
            expected /= frame["interval"].fillna(_USUAL_INTERVAL)
        tradable = frame["close"].notna() & (frame["where"] > 0 if self.where else True)
        return expected.where(tradable).unstack(level="instrument")  # noqa: PD010 - index to columns, nothing to pivot


def funding_pairs(income: pd.Series, held: Mapping[str, float], cost: float, topk: int) -> tuple[list[str], list[str]]:
    """Return the symbols to be long and to be short: pairs that are expected to earn more funding than they cost. Pure.

    A pair is short one symbol and long another, so that what both do together costs nothing. The first pair is that of
    the highest and the lowest income, and so on, at most `topk` of them. A pair is taken where it earns more than its
    legs have still to pay: a leg that is held on that side already has paid.

    income: symbol → funding that a short position is expected to receive, as a share of it; NaN: not to be held
    held: symbol → signed amount
    cost: of opening and closing a leg, as a share of it
    """
    known = income.dropna().sort_index()
    short = known + [cost * (held.get(symbol, 0.0) < 0) for symbol in known.index]
    long = -known + [cost * (held.get(symbol, 0.0) > 0) for symbol in known.index]
    longs: list[str] = []
    shorts: list[str] = []
    for _ in range(min(topk, len(known) // 2)):
        over, under = short.idxmax(), long.drop(short.idxmax()).idxmax()
        if short[over] + long[under] <= 2 * cost:
            break
        shorts.append(over)
        longs.append(under)
        short, long = short.drop([over, under]), long.drop([over, under])
    return longs, shorts


_OF_PAIRS = (_OF_CARRY | {"where"}) - {"n_drop"}
"""What FundingPairs passes on: it replaces what is not worth its costs any more, however many that are."""


class FundingPairs(FundingCarry):
    """Collect funding where it is worth its costs: decide before settlements, and hold pairs of short and long.

    A decision is taken in the last bar before a settlement, as its rate is known best then; in all other bars nothing
    is done. A rate is expected to be settled `settlements` times. How long rates last is a property of the market that
    has to be measured; where they do not last that long, the strategy pays for what it does not get. Costs are
    those of the backtest's exchange: fee and slippage of opening and closing. See `funding_pairs` for the rest.
    Both sides have the same number of positions, each of equity x leverage / (2 topk) when it is opened: with fewer
    pairs that are worth it, less is held. What is held is left alone until it is not worth it any more, or
    until it is far from its size (`tolerance`).

    Parameters
    ----------
    topk: pairs at most
    settlements: how often the expected rate is expected to be paid
    leverage, tolerance, where: see FundingCarry
    """

    def __init__(self, *, topk: int, settlements: float = 3.0, tolerance: float = 1.0, **kwargs: Any) -> None:
        _check(self, kwargs, _OF_PAIRS)
        number("settlements", settlements, over=0)
        super().__init__(topk=topk, per_hour=False, tolerance=tolerance, **kwargs)
        self.settlements = settlements

    def choose(self, scores: pd.Series, held: dict[str, float]) -> tuple[list[str], list[str]]:
        """Return the symbols to be long and to be short; see `funding_pairs`. scores: what longs receive at one."""
        exchange = self.trade_exchange
        cost = 2 * (exchange.fee_rate + exchange.slippage)
        return funding_pairs(-self.settlements * scores, held, cost, self.topk)

    def _load(self) -> pd.DataFrame:
        """Return the expected funding of the bars before those in which something is decided."""
        frame = self._read()
        minutes = Freq.get_timedelta(*Freq.parse(self.trade_calendar.get_freq())) / pd.Timedelta("1min")
        due = frame["wait"].isna() | (frame["wait"] <= minutes)
        return self._expected_of(frame).loc[due.groupby(level="datetime").any()]

    def _targets(self, longs: list[str], shorts: list[str]) -> dict[str, float]:
        notional = max(self.trade_position.calculate_value(), 0.0) * self.leverage / (2 * self.topk)
        return dict.fromkeys(longs, notional) | dict.fromkeys(shorts, -notional)
