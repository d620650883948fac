"""An exchange of linear perpetual futures for Qlib's backtest."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from qlib.backtest.account import Account
from qlib.backtest.decision import Order
from qlib.backtest.exchange import Exchange
from qlib.data import D
from qlib.utils.time import Freq

from perps.arguments import instant, length, number, one_of, settled_of
from perps.bars import has
from perps.lives import LIFE, Bools, changes, delistings, last_true, silences
from perps.margin import Ask, opening_share
from perps.panel import Floats, PanelQuote
from perps.position import PerpPosition
from perps.settlements import settlements

FUNDING = "$funding_paid"
COVERAGE = "$coverage"
_EVIDENCE = (LIFE, COVERAGE)
_HOUR = "60min"
#: Qlib does not book a trade of this value or less (quote currency).
_LEAST_VALUE = 1e-5
_MARKET = ("$open", "$high", "$low", "$close", "$volume")


@dataclass(frozen=True)
class Settlement:
    """Funding settled at one instant."""

    opening: bool
    """At the instant at which the bar opens (or somewhere in the bar, where no more is known)."""
    rates: dict[str, float]
    """Symbol → rate, a share of the notional; positive: longs pay shorts."""
    prices: dict[str, float]
    """Symbol → last close known at the instant, of those that traded within the bar before it."""


class PerpExchange(Exchange):
    """Long and short, fractional contracts, fees, slippage, funding, a leverage cap and liquidation.

    `perps.backtest` plugs it in. In the settings of a workflow, it needs `PerpExecutor` and PerpPosition beside it:

        executor: {class: PerpExecutor, module_path: perps.executor, kwargs: {time_per_step: 60min}}
        backtest:
          pos_type: perps.position.PerpPosition
          exchange_kwargs:
            exchange: {class: PerpExchange, module_path: perps.exchange, kwargs: {freq: 60min, slippage: 0.0002}}

    Within a bar, in this order:

    1. positions that have ended are closed, and the orders of the bar in their symbols cancelled (see below);
    2. funding settled at the bar's open instant is paid by what was held before, as the trades below come after it;
    3. the margin is checked; a liquidated account has its orders of the bar cancelled;
    4. orders are done at `deal_price` with slippage;
    5. funding settled later within the bar is paid (only where `funding_freq` is finer than the bars);
    6. the margin is checked again.

    With a `deal_price` other than open, trades happen at or towards the end of the bar: 5 comes before 3.

    Ends. A position ends with the life of its symbol: in the first bar that opens after the last minute of a life in
    `instruments/delisted.txt`, and in a bar at which `$life` is another number than before. OKX settles a delisted
    contract at the mean of its index over the last hour, and the funding of that instant is void; no fee is documented.
    The dataset has no index, so the last close stands in for it: no slippage, no fee. Nothing of a life reaches the
    next one of the same name, neither a price nor a payment.
    A symbol of which nothing is seen any more (no price, no `$coverage`, no `$funding_paid`) and that is not
    known to be delisted is no longer followed. Whether it will come back is not known at its last bar, so a position
    in it is held, at the last price, through a silence as long as `patience`, and closed in the first bar that makes
    it longer: at the last price with slippage and the taker fee. Both are counted, apart. What is silent when the
    backtest ends is still held, at its last price. Nothing of this depends on what the dataset has after the backtest.

    Funding. Payment = amount x price x rate, charged for every settlement in the bar; positive rates are paid by longs
    and received by shorts. The price is the last close known at the settlement: for one at the bar's open instant the
    close of the bar before. An exchange takes its mark price of that instant, which the dataset does not have; of the
    two prices around the instant, the close before is known (also where the bar itself has no price: then the last one
    there was), while the open may come from a trade seconds later. On OKX funding settles on whole hours, that is at
    the open of a bar at 60min and below. Bars of several hours contain several settlements: `funding_freq` is the
    frequency whose bars have their instants and prices apart. A dataset knows few rates of days without candles;
    `settled` has all that were collected. A rate that neither knows counts as 0, and the ledger counts such bars.

    Margin. Equity = cash + sum of amount x price; an account is liquidated where equity < maintenance_margin x gross
    notional on the way from the open to the worst of the bar: its low for longs, its high for shorts, all in step. That
    is the cautious end: highs and lows of different symbols rarely coincide, but a backtest that judges by closes
    survives drawdowns that no exchange would have let it survive. All positions are closed at the point where
    the margin is breached, with `liquidation_fee` and slippage; where the open is beyond it already, at the open (what
    has no price in the bar, at its last one). So an
    account ends below zero only by what a gap between two bars takes (and the fee), never by what happens within one.
    `liquidation_at="close"` checks the way from open to close instead.

    Parameters
    ----------
    freq: of the bars; must be the executor's
    start_time, end_time: first and last bar. Where left out, those of the backtest (then it cannot be a nested one)
    codes: a list of symbols, or the name of an instruments file; prices are loaded for all who were ever in it, so that
        what has left a universe still has a price
    deal_price: a field or expression, or two of them (for buying, for selling)
    taker_fee, maker_fee: share of the notional; `fee` says which of the two orders pay. Forced trades pay the taker's
    slippage: share of the price by which orders are done worse than `deal_price`
    leverage: cap of gross notional / equity for orders that open; reducing is always possible
    maintenance_margin: share of the gross notional; 0 liquidates at equity 0
    liquidation_fee: share of the notional; the taker fee where left out
    funding: False leaves funding out, for a dataset without the field `$funding_paid`
    funding_freq: finer frequency to take settlements from; where left out, 60min for longer bars if the dataset has it
    settled: rates for the bars whose rates the dataset does not know: the collector's DATA_DIR, or what
        `perps.settlements` returns
    patience: the longest time for which a symbol may be silent without being closed; see "Ends"
    subscribe_fields, volume_threshold: see Qlib's Exchange

    No lots, no price limits and no minimal cost, whatever Qlib's configuration says. Instants with a zone become UTC.

    Raises ValueError for a setting that makes no sense, with its name, its value and what is allowed.
    """

    freq: str
    start_time: Any
    end_time: Any
    codes: Any
    quote: PanelQuote

    def __init__(  # noqa: PLR0917 - in the order of Qlib's Exchange
        self,
        freq: str = "day",
        start_time: pd.Timestamp | str | None = None,
        end_time: pd.Timestamp | str | None = None,
        codes: list[str] | str = "all",
        deal_price: str | tuple[str, str] | list[str] = "open",
        subscribe_fields: Sequence[str] = (),
        *,
        taker_fee: float = 0.0005,
        maker_fee: float = 0.0002,
        fee: Literal["taker", "maker"] = "taker",
        slippage: float = 0.0,
        leverage: float = 3.0,
        maintenance_margin: float = 0.01,
        liquidation_fee: float | None = None,
        liquidation_at: Literal["range", "close"] = "range",
        funding: bool = True,
        funding_freq: str | None = None,
        settled: str | Path | pd.DataFrame | None = None,
        patience: str | pd.Timedelta = "1D",
        volume_threshold: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        fees = {
            name: number(f"{name}_fee", given, over=-1, below=1)
            for name, given in (("taker", taker_fee), ("maker", maker_fee))
        }
        ways = {"range": ("$low", "$high"), "close": ("$close", "$close")}
        self.fee_rate = fees[one_of("fee", fee, fees)]
        self.taker_fee = taker_fee
        self.slippage = number("slippage", slippage, least=0, below=1)
        self.leverage = number("leverage", leverage, over=0)
        self.maintenance_margin = number("maintenance_margin", maintenance_margin, least=0, below=1)
        forced = taker_fee if liquidation_fee is None else liquidation_fee
        self.liquidation_fee = number("liquidation_fee", forced, over=-1, below=1)
        self.liquidation_at = ways[one_of("liquidation_at", liquidation_at, ways)]
        self.funding = funding
        self.funding_freq = funding_freq
        self.settled = settled_of(settled, ("funding_time", "symbol", "funding_rate"))
        self.patience = length("patience", patience)
        self._subscribed = tuple(subscribe_fields)
        self._share: float | None = None
        super().__init__(
            freq=freq,
            start_time=None if start_time is None else instant("start_time", start_time),
            end_time=None if end_time is None else instant("end_time", end_time),
            codes=codes,
            deal_price=deal_price,
            subscribe_fields=list(subscribe_fields),
            limit_threshold=0.1,  # None means Qlib's configuration; there is no limit, see check_stock_limit
            volume_threshold=_tuples(volume_threshold),
            open_cost=self.fee_rate,
            close_cost=self.fee_rate,
            min_cost=0.0,
            trade_unit=None,
            quote_cls=self._panel,
        )

    # --- data

    def get_quote_from_qlib(self) -> None:
        """Load the bars; an exchange without a range waits until the backtest passes one, see `cover`."""
        own = {
            *_MARKET,
            *_EVIDENCE,
            self.buy_price,
            self.sell_price,
            *self._subscribed,
            *([FUNDING] if self.funding else []),
        }
        limits = {expression for _, expression in [*(self.buy_vol_limit or []), *(self.sell_vol_limit or [])]}
        self.all_fields = sorted(own | limits)
        self.trade_w_adj_price = True  # the name for: amounts are not rounded to lots
        if self.start_time is None or self.end_time is None:
            index = pd.MultiIndex.from_arrays([[], pd.DatetimeIndex([])], names=["instrument", "datetime"])
            self.quote_df = pd.DataFrame(columns=self.all_fields, index=index, dtype="float64")
            self._bars: Sequence[pd.Timestamp] = []
            return
        if not isinstance(self.codes, list):
            self.codes = sorted(D.list_instruments(self.codes, self.start_time, self.end_time, self.freq, as_list=True))
        if not self.codes:
            raise ValueError(f"no symbols between {self.start_time} and {self.end_time}")
        self._bars = D.calendar(self._before_start(), self.end_time, freq=self.freq)
        self.quote_df = D.features(self.codes, self.all_fields, self._bars[0], self._bars[-1], freq=self.freq)
        self.quote_df.columns = self.all_fields
        if self.quote_df.empty:
            raise ValueError(f"no {self.freq} bars between {self.start_time} and {self.end_time}")

    def _panel(self, quote_df: pd.DataFrame, freq: str) -> PanelQuote:
        return PanelQuote(quote_df, freq, self._bars)

    def _before_start(self) -> pd.Timestamp:
        """Return the bar before the first: its close is what is known when the first one opens."""
        calendar = D.calendar(freq=self.freq)
        return calendar[max(int(np.searchsorted(calendar, pd.Timestamp(self.start_time))) - 1, 0)]

    def cover(self, first: pd.Timestamp, last: pd.Timestamp, freq: str) -> None:
        """Make sure that the bars of a backtest, from the first to the last, are loaded.

        Raises ValueError where the exchange has other bars than the backtest goes through: Qlib would take every symbol
        for suspended, or trade at the prices of another frequency, and say nothing.
        """
        if Freq(freq) != Freq(self.freq):
            raise ValueError(f"the executor goes through {freq} bars, the exchange has {self.freq}: give both the same")
        if self.start_time is None or self.end_time is None:
            self.start_time, self.end_time = first, last
            self.get_quote_from_qlib()
            self.quote = self._panel(self.quote_df, self.freq)
        if not hasattr(self, "_settlements"):
            self._prepare()
        times = self.quote.times
        if first < times[0] or last > times[-1]:
            raise ValueError(
                f"the backtest goes from {first} to {last}, but the exchange has {self.freq} bars from {times[0]} to "
                f"{times[-1]} only: give the exchange the range of the backtest (or none), and end at the last bar"
            )

    def _prepare(self) -> None:
        quote = self.quote
        if self.funding:
            self._fill_in_rates(quote, self.freq)
        self._ended, self._silent = self._ends(), self._silences()
        self._known_before = self._prices_known_before()
        self._ending_prices: dict[tuple[int, str], float] = {}
        self._unknown_funding = np.zeros(quote.fields["$close"].shape, dtype=bool)
        self._settlements: dict[int, list[Settlement]] = self._load_settlements() if self.funding else {}

    # --- ends

    def _ends(self) -> Bools:
        """Return in which bars (rows) a position that was held before in a symbol (column) has ended."""
        quote = self.quote
        ended = changes(quote.fields[LIFE])
        self._delistings = {symbol: ends for symbol, ends in delistings(self.freq).items() if symbol in quote.columns}
        for symbol, ends in self._delistings.items():
            rows = quote.times.searchsorted(pd.DatetimeIndex(ends), side="right")
            ended[rows[rows < len(ended)], quote.columns[symbol]] = True
        return ended

    def _silences(self) -> Bools:
        fields = self.quote.fields
        seen = ~np.isnan(fields["$close"]) | (fields[COVERAGE] > 0)
        if self.funding:
            seen |= np.nan_to_num(fields[FUNDING]) != 0
        return silences(seen, self.quote.times, _length(self.freq), self.patience)

    def _prices_known_before(self) -> Floats:
        """Return the last close known when a bar opens, of the life that it belongs to."""
        close = self.quote.fields["$close"]
        before: Floats = pd.DataFrame(close).ffill().shift(1).to_numpy()
        priced = np.roll(last_true(~np.isnan(close)), 1, axis=0)
        before[priced < last_true(self._ended)] = np.nan
        return before

    def has_ended(self, row: int, symbol: str) -> bool:
        """Return whether what was held of a symbol before a bar was delisted, or its name given away, by then."""
        column = self.quote.columns.get(symbol)
        return column is not None and bool(self._ended[row, column])

    def is_silent(self, row: int, symbol: str) -> bool:
        """Return whether with the end of a bar nothing has been seen of a symbol for longer than `patience`."""
        return bool(self._silent[row, self.quote.columns[symbol]])

    def ending_price(self, row: int, symbol: str) -> float | None:
        """Return at which price a symbol ended before a bar; None where finer bars know no more than the bars do."""
        return self._ending_prices.get((row, symbol))

    # --- funding

    def _load_settlements(self) -> dict[int, list[Settlement]]:
        quote = self.quote
        if np.isnan(quote.fields[FUNDING]).all():
            raise ValueError(
                f"the dataset has no {FUNDING} at {self.freq}: convert it again, or leave it out with funding=False"
            )
        fine = self._finer_quote()
        if fine is None:
            self._unknown_funding = np.isnan(quote.fields[FUNDING])
            return {
                row: [Settlement(True, self._named(quote, rates), {})]
                for row, rates in enumerate(quote.fields[FUNDING])
                if np.nansum(np.abs(rates)) > 0
            }
        return self._settlements_of(fine)

    def _finer_quote(self) -> PanelQuote | None:
        freq = self.funding_freq or (_HOUR if _longer_than_an_hour(self.freq) and has(_HOUR) else self.freq)
        if freq == self.freq:
            return None
        quote = self.quote
        end = quote.times[-1] + _length(self.freq) - pd.Timedelta(seconds=1)
        frame = D.features(list(quote.columns), [FUNDING, "$close"], quote.times[0], end, freq=freq)
        fine = PanelQuote(frame, freq, D.calendar(quote.times[0], end, freq=freq))
        self._fill_in_rates(fine, freq)
        return fine

    def _fill_in_rates(self, panel: PanelQuote, freq: str) -> None:
        """Put collected rates where the dataset knows none; several of a bar are summed, as in the dataset."""
        if self.settled is None:
            return
        end = panel.times[-1] + _length(freq)
        known = (
            self.settled if isinstance(self.settled, pd.DataFrame) else settlements(self.settled, panel.times[0], end)
        )
        inside = known["symbol"].isin(panel.columns) & known["funding_time"].between(panel.times[0], end, "left")
        known = known[inside]
        rows = panel.times.searchsorted(known["funding_time"], side="right") - 1
        sums = known.groupby([rows, known["symbol"].map(panel.columns)])["funding_rate"].sum()
        places = tuple(sums.index.get_level_values(level).to_numpy() for level in (0, 1))
        rates = panel.fields[FUNDING]
        rates[places] = np.where(np.isnan(rates[places]), sums.to_numpy(), rates[places])

    def _settlements_of(self, fine: PanelQuote) -> dict[int, list[Settlement]]:
        quote = self.quote
        bar_of = np.searchsorted(quote.times.asi8, fine.times.asi8, side="right") - 1
        closes = pd.DataFrame(fine.fields["$close"])
        before = closes.groupby(bar_of).ffill().groupby(bar_of).shift(1).to_numpy()
        here = [quote.columns[symbol] for symbol in fine.columns]
        self._unknown_funding[:] = True
        self._unknown_funding[:, here] = False
        settlements: defaultdict[int, list[Settlement]] = defaultdict(list)
        for row, rates in enumerate(self._rates_until_the_end(fine)):
            bar = int(bar_of[row])
            self._unknown_funding[bar, here] |= np.isnan(rates)
            if np.nansum(np.abs(rates)) > 0:
                opening = bool(fine.times[row] == quote.times[bar])
                named = self._named(fine, rates), self._named(fine, before[row])
                settlements[bar].append(Settlement(opening, *named))
        return dict(settlements)

    def _rates_until_the_end(self, fine: PanelQuote) -> Floats:
        """Return the finer rates, 0 from the end of a life to the end of its bar; and note its last finer price."""
        rates = fine.fields[FUNDING].copy()
        bar_begins = np.append(fine.times.searchsorted(self.quote.times), len(fine.times))
        known_ends = [(name, end) for name, ends in self._delistings.items() if name in fine.columns for end in ends]
        for symbol, end in known_ends:
            column, after = fine.columns[symbol], int(fine.times.searchsorted(end, side="right"))
            row = int(self.quote.times.searchsorted(end, side="right"))
            rates[after : bar_begins[row], column] = 0.0
            closes = fine.fields["$close"][bar_begins[max(row - 1, 0)] : after, column]
            known = closes[~np.isnan(closes)]
            if len(known):
                self._ending_prices[row, symbol] = float(known[-1])
        return rates

    @staticmethod
    def _named(quote: PanelQuote, values: Floats) -> dict[str, float]:
        return {
            symbol: float(values[column])
            for symbol, column in quote.columns.items()
            if values[column] != 0 and not np.isnan(values[column])
        }

    # --- a bar

    @property
    def trades_at_open(self) -> bool:
        """Whether orders are done at the very beginning of a bar."""
        return bool(self.buy_price == self.sell_price == "$open")

    def row(self, bar: pd.Timestamp) -> int:
        """Return the place of a bar in the arrays."""
        return int(self.quote.span(bar, bar).start)

    def settlements(self, row: int) -> list[Settlement]:
        """Return the settlements of a bar, in order."""
        return self._settlements.get(row, [])

    def funding_unknown(self, row: int, symbol: str) -> bool:
        """Return whether the dataset does not know what was settled of a symbol in a bar."""
        return bool(self._unknown_funding[row, self.quote.columns[symbol]])

    def price(self, field: str, row: int, symbol: str) -> float | None:
        """Return a price of a bar, None where it has none."""
        value = float(self.quote.fields[field][row, self.quote.columns[symbol]])
        return None if np.isnan(value) else value

    def last_close(self, bar: pd.Timestamp, symbol: str) -> float | None:
        """Return the last close known when a bar opens, None where there is none within the loaded bars."""
        if symbol not in self.quote.columns:
            return None
        value = float(self._known_before[self.row(bar), self.quote.columns[symbol]])
        return None if np.isnan(value) else value

    # --- orders

    def check_stock_limit(self, stock_id: str, start_time: Any, end_time: Any, direction: int | None = None) -> bool:
        """Return whether there is no price to trade at: that is the only limit."""
        fields = {Order.BUY: [self.buy_price], Order.SELL: [self.sell_price]}.get(
            direction, [self.buy_price, self.sell_price]
        )
        prices = [self.quote.get_data(stock_id, start_time, end_time, field, method="ts_data_last") for field in fields]
        return not all(price is not None and price > 0 for price in prices)

    def get_deal_price(
        self,
        stock_id: str,
        start_time: Any,
        end_time: Any,
        direction: int,
        method: str | None = "ts_data_last",
    ) -> Any:
        """Return the price at which an order is done, however small it is.

        Qlib takes the close where a price is 1e-8 or less, which is a look into the future for a coin that is cheap.
        """
        field = self.sell_price if direction == Order.SELL else self.buy_price
        return self.quote.get_data(stock_id, start_time, end_time, field, method=method)

    def get_factor(self, stock_id: str, start_time: Any, end_time: Any) -> float | None:  # noqa: ARG002 - Qlib's signature
        """Return 1: a contract is never adjusted."""
        return 1.0 if stock_id in self.quote.columns else None

    def deal_order(
        self,
        order: Order,
        trade_account: Account | None = None,
        position: PerpPosition | None = None,
        dealt_order_amount: dict[str, float] | None = None,
    ) -> tuple[float, float, float]:
        """Do an order, and note what slippage cost. Returns value, fee and price of the trade."""
        dealt = defaultdict(float) if dealt_order_amount is None else dealt_order_amount
        value, cost, price = super().deal_order(order, trade_account, position, dealt)
        book = position if trade_account is None else trade_account.current_position
        if value > 0 and book is not None:
            reference = price / (1 + order.sign * self.slippage)
            book.flows.slippage[order.stock_id] += order.sign * order.deal_amount * (price - reference)
        return value, cost, price

    def _calc_trade_info_by_order(
        self, order: Order, position: PerpPosition | None, dealt_order_amount: dict[str, float]
    ) -> tuple[float, float, float]:
        reference = self.get_deal_price(order.stock_id, order.start_time, order.end_time, direction=order.direction)
        price = float(reference) * (1 + order.sign * self.slippage)
        order.factor = 1.0
        order.deal_amount = order.amount
        self._clip_amount_by_volume(order, dealt_order_amount)
        if position is not None:
            self._clip_by_margin(order, position)
            position.note_trade(order.stock_id, price)
        if order.deal_amount * price <= _LEAST_VALUE:
            order.deal_amount = 0.0
        value = order.deal_amount * price
        return price, value, value * self.fee_rate

    # --- margin

    @contextmanager
    def sharing_margin(self, orders: Sequence[Order], position: PerpPosition) -> Iterator[None]:
        """Cut what the orders of a bar open by one common share, instead of whoever comes last."""
        if self.volume_threshold is None:  # else it is not known yet how much of which order will be done
            self._share = self._opening_share([(order, order.amount) for order in orders], position)
        try:
            yield
        finally:
            self._share = None

    def _clip_by_margin(self, order: Order, position: PerpPosition) -> None:
        share = self._opening_share([(order, order.deal_amount)], position) if self._share is None else self._share
        if share < 1:
            reducing = _reducing(order, order.deal_amount, position.get_stock_amount(order.stock_id))
            order.deal_amount = reducing + share * (order.deal_amount - reducing)

    def _opening_share(self, orders: Sequence[tuple[Order, float]], position: PerpPosition) -> float:
        doable = [(order, amount) for order, amount in orders if self.check_order(order)]
        if not doable:
            return 1.0
        row = self.row(doable[0][0].start_time)
        held = position.get_stock_amount_dict()
        notionals = [held[symbol] * self.mark(row, symbol, position) for symbol in position.held()]
        equity = position.get_cash() + sum(notionals)
        asks = []
        for order, amount in doable:
            before = held.get(order.stock_id, 0.0)
            asks.append(self._ask(row, order, amount, before))
            held[order.stock_id] = before + order.sign * amount
        return opening_share(equity, sum(map(abs, notionals)), asks, self.leverage)

    def _ask(self, row: int, order: Order, amount: float, held: float) -> Ask:
        """Return what an order for an amount needs, given what is held."""
        price = (
            self.price(self.buy_price if order.direction == Order.BUY else self.sell_price, row, order.stock_id) or 0.0
        )
        reducing = _reducing(order, amount, held)
        cost = self.slippage + (1 + order.sign * self.slippage) * self.fee_rate
        return Ask(reducing * price, (amount - reducing) * price, cost)

    def mark(self, row: int, symbol: str, position: PerpPosition) -> float:
        """Return the price of a symbol when orders are done: the bar's, or the last known one."""
        price = self.price(self.buy_price, row, symbol)
        return position.get_stock_price(symbol) if price is None else price


def _tuples(threshold: Sequence[str] | Mapping[str, Sequence[str]] | None) -> Any:
    """Return a threshold as Qlib wants it: YAML knows no tuples."""
    if isinstance(threshold, Mapping):
        return {side: tuple(limit) for side, limit in threshold.items()}
    return threshold if threshold is None else tuple(threshold)


def _reducing(order: Order, amount: float, held: float) -> float:
    """Return how much of an order's amount reduces what is held; the rest opens."""
    return float(min(amount, max(-order.sign * held, 0.0)))


def _length(freq: str) -> pd.Timedelta:
    return pd.Timedelta(freq if freq[0].isdigit() else f"1{freq}")


def _longer_than_an_hour(freq: str) -> bool:
    return bool(_length(freq) > pd.Timedelta(hours=1))
