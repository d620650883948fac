"""Goes through the bars of a backtest with perpetual futures."""

import math
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from qlib.backtest.decision import BaseTradeDecision, Order
from qlib.backtest.executor import NestedExecutor, SimulatorExecutor

from perps.arguments import check_names, names_of
from perps.bars import within
from perps.exchange import PerpExchange, Settlement
from perps.margin import breach
from perps.pnl import ledger, ledger_by_symbol
from perps.position import PerpPosition


@contextmanager
def without_empty_means() -> Iterator[None]:
    """Silence a warning: Qlib takes the mean of a bar's trades, and a bar without any is nothing to warn of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        yield


class PerpExecutor(SimulatorExecutor):
    """Does what happens to perpetuals within a bar, in the order that `PerpExchange` describes.

    Plug it in with `executor: {class: PerpExecutor, module_path: perps.executor, kwargs: {time_per_step: 60min}}`.
    An instance may be given to `qlib.backtest.backtest` as well, and asked for its `ledger` afterwards.

    Inside another executor that must be a `PerpNestedExecutor`: Qlib's NestedExecutor leaves the bars out at which
    nothing is decided, with their funding and liquidations. The exchange needs its `start_time` and `end_time` then,
    and only this level's positions carry flows.

    Takes the arguments of Qlib's SimulatorExecutor by name. Raises TypeError for any other.
    """

    goes_through_every_bar = False
    """Whether whoever runs this executor inside of another one leaves no bar out; `PerpNestedExecutor` says so."""

    def __init__(self, time_per_step: str = "day", *, generate_portfolio_metrics: bool = True, **kwargs: Any) -> None:
        check_names(type(self).__name__, kwargs, names_of(SimulatorExecutor), names_of(PerpExchange))
        super().__init__(time_per_step=time_per_step, generate_portfolio_metrics=generate_portfolio_metrics, **kwargs)

    @property
    def ledger(self) -> pd.DataFrame:
        """Return the profit and loss of each bar so far; see `perps.ledger`."""
        return ledger(self.trade_account.get_hist_positions())

    @property
    def ledger_by_symbol(self) -> pd.DataFrame:
        """Return the profit and loss of each bar and symbol so far; see `perps.ledger_by_symbol`."""
        return ledger_by_symbol(self.trade_account.get_hist_positions())

    @property
    def position(self) -> PerpPosition:
        """Return what is held. Raises TypeError where the backtest was given another kind of position."""
        position = self.trade_account.current_position
        if not isinstance(position, PerpPosition):
            raise TypeError("PerpExecutor needs `pos_type: perps.position.PerpPosition` in the backtest's settings")
        return position

    @property
    def exchange(self) -> PerpExchange:
        """Return the exchange. Raises TypeError where the backtest was given another kind."""
        exchange = self.trade_exchange
        if not isinstance(exchange, PerpExchange):
            raise TypeError(
                "PerpExecutor needs a PerpExchange: `exchange_kwargs: {exchange: {class: PerpExchange, …}}`"
            )
        return exchange

    def reset(self, common_infra: Any = None, **kwargs: Any) -> None:
        """Begin: Qlib passes the first and the last instant here."""
        super().reset(common_infra=common_infra, **kwargs)
        if kwargs.get("start_time") is not None and kwargs.get("end_time") is not None:
            self._begin()

    def _begin(self) -> None:
        calendar = self.trade_calendar
        within(calendar.start_time, calendar.end_time, self.time_per_step)
        try:
            first, last = calendar.get_step_time(0)[0], calendar.get_step_time(calendar.get_trade_len() - 1)[0]
        except IndexError as error:
            raise ValueError(
                f"the backtest ends at the last bar of the {self.time_per_step} calendar, and Qlib needs to know the "
                f"next (from calendars/{self.time_per_step}_future.txt): end one bar earlier"
            ) from error
        self.exchange.cover(first, last, self.time_per_step)
        self._price_what_is_held(first)

    def _price_what_is_held(self, bar: pd.Timestamp) -> None:
        """Give positions that the account begins with, and no price, the last close known.

        The first return is then relative to the value of the account, not to its cash as Qlib has it.
        """
        for symbol in self.position.held():
            if symbol not in self.exchange.quote.columns:
                raise ValueError(f"the account begins with {symbol}, which the exchange does not have")
            held = self.position.position[symbol]
            if held.get("price") is None:
                held["price"] = self.exchange.last_close(bar, symbol)
            if held["price"] is None:
                raise ValueError(f"the account begins with {symbol}, of which no price is known at {bar}")
        worth = self.position.calculate_value()
        if not worth > 0:
            raise ValueError(f"account is worth {worth:g} at {bar}: it must be worth more than 0")
        self.trade_account.init_cash = worth

    def collect_data(self, *args: Any, **kwargs: Any) -> Generator[Any, Any, list[Any]]:
        """Go one bar on; see Qlib's BaseExecutor."""
        with without_empty_means():
            done: list[Any] = yield from super().collect_data(*args, **kwargs)
        return done

    def _collect_data(self, trade_decision: BaseTradeDecision, level: int = 0) -> tuple[list[Any], dict[str, Any]]:
        if level and not self.goes_through_every_bar:
            raise TypeError(
                "a PerpExecutor inside of a NestedExecutor would miss the funding and the liquidations of every bar at "
                "which nothing is decided: take perps.executor.PerpNestedExecutor instead"
            )
        bar, _ = self.trade_calendar.get_step_time()
        exchange, position = self.exchange, self.position
        row, at_open = exchange.row(bar), exchange.trades_at_open
        settlements = exchange.settlements(row)
        position.begin_bar()
        self._close_ended(row)
        self._note_unknown_funding(row)
        for settlement in settlements:
            if settlement.opening or not at_open:
                self._settle(settlement)
        if self._liquidate(row, on_the_way=not at_open):
            return [], {"trade_info": []}
        with exchange.sharing_margin(self._get_order_iterator(trade_decision), position):
            done: tuple[list[Any], dict[str, Any]] = super()._collect_data(trade_decision, level)
        for settlement in settlements:
            if at_open and not settlement.opening:
                self._settle(settlement)
        self._liquidate(row, on_the_way=at_open)
        return done

    def _get_order_iterator(self, trade_decision: BaseTradeDecision) -> list[Order]:
        """Return the orders, those first that make the account smaller: they free the margin that the others need.

        An order for a symbol whose life has just ended was meant for another instrument, and is left out.
        """
        held = self.position.get_stock_amount_dict()
        row = self.exchange.row(self.trade_calendar.get_step_time()[0])

        def growth(order: Order) -> float:
            before = held.get(order.stock_id, 0.0)
            return float(abs(before + order.amount_delta) - abs(before))

        orders = super()._get_order_iterator(trade_decision)
        doable = [order for order in orders if not self.exchange.has_ended(row, order.stock_id)]
        return sorted(doable, key=lambda order: growth(order) > 0)

    # --- what was not ordered

    def _close_ended(self, row: int) -> None:
        """Close what was delisted, which the exchange settles without costs, and what is no longer followed."""
        exchange, flows = self.exchange, self.position.flows
        for symbol in self.position.held():
            price = self.position.get_stock_price(symbol)
            if exchange.has_ended(row, symbol):
                settled_at = exchange.ending_price(row, symbol)
                self._close(symbol, price if settled_at is None else settled_at, 0.0)
                flows.delisted.append(symbol)
            elif exchange.is_silent(row, symbol):
                self._close_with_slippage(symbol, price, exchange.taker_fee)
                flows.unfollowed.append(symbol)

    def _note_unknown_funding(self, row: int) -> None:
        unknown = [symbol for symbol in self.position.held() if self.exchange.funding_unknown(row, symbol)]
        self.position.flows.funding_unknown.extend(unknown)

    def _settle(self, settlement: Settlement) -> None:
        position = self.position
        for symbol in position.held():
            if symbol in settlement.rates:
                price = settlement.prices.get(symbol, position.get_stock_price(symbol))
                position.pay_funding(symbol, position.get_stock_amount(symbol) * price * settlement.rates[symbol])

    def _liquidate(self, row: int, *, on_the_way: bool) -> bool:
        """Close everything where the margin is breached: at the price of the bar's orders, or on the way from its open.

        Returns whether anything was closed.
        """
        position, exchange = self.position, self.exchange
        symbols = position.held()
        amounts = np.array([position.get_stock_amount(symbol) for symbol in symbols])
        begin = np.array([self._price(exchange.buy_price, row, symbol) for symbol in symbols])
        end = begin
        if on_the_way:
            fields = [exchange.liquidation_at[int(amount < 0)] for amount in amounts]
            begin = np.array([self._price("$open", row, symbol) for symbol in symbols])
            end = np.array([self._price(field, row, symbol) for field, symbol in zip(fields, symbols, strict=True)])
        way = breach(position.get_cash(), amounts, begin, end, exchange.maintenance_margin)
        if way is None:
            return False
        for symbol, price in zip(symbols, begin + way * (end - begin), strict=True):
            self._close_with_slippage(symbol, float(price), exchange.liquidation_fee)
        position.flows.liquidated.extend(symbols)
        return bool(symbols)

    def _price(self, field: str, row: int, symbol: str) -> float:
        """Return a price of the bar; where it has none, the last known one."""
        price = self.exchange.price(field, row, symbol)
        return self.position.get_stock_price(symbol) if price is None else price

    def _close_with_slippage(self, symbol: str, price: float, fee: float) -> None:
        amount = float(self.position.get_stock_amount(symbol))
        slipped = price * (1 - math.copysign(self.exchange.slippage, amount))
        self._close(symbol, slipped, fee)
        self.position.flows.slippage[symbol] += abs(amount) * abs(slipped - price)

    def _close(self, symbol: str, price: float, fee: float) -> None:
        amount = self.position.get_stock_amount(symbol)
        start, end = self.trade_calendar.get_step_time()
        order = Order(symbol, abs(amount), Order.SELL if amount > 0 else Order.BUY, start, end)
        order.deal_amount = order.amount
        value = order.amount * price
        self.position.note_trade(symbol, price)
        self.trade_account.update_order(order, value, value * fee, price)


class PerpNestedExecutor(NestedExecutor):
    """Qlib's NestedExecutor around a PerpExecutor (or another one of these): no inner bar is left out.

    Positions pay funding, and may be liquidated, also at bars at which nothing is decided.

    Takes the arguments of Qlib's NestedExecutor. Raises TypeError for any other.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check_names(type(self).__name__, kwargs, names_of(NestedExecutor), names_of(PerpExchange))
        for name in ("skip_empty_decision", "align_range_limit"):
            if kwargs.setdefault(name, False):
                raise ValueError(f"{name}=True would leave bars out, with their funding and liquidations")
        super().__init__(*args, **kwargs)
        if not isinstance(self.inner_executor, PerpExecutor | PerpNestedExecutor):
            raise TypeError("inside of a PerpNestedExecutor there is a PerpExecutor, or another one of these")
        self.inner_executor.goes_through_every_bar = True

    goes_through_every_bar = False

    def collect_data(self, *args: Any, **kwargs: Any) -> Generator[Any, Any, list[Any]]:
        """Go one bar on; see Qlib's BaseExecutor."""
        with without_empty_means():
            done: list[Any] = yield from super().collect_data(*args, **kwargs)
        return done

    def _collect_data(self, trade_decision: BaseTradeDecision, level: int = 0) -> Generator[Any, Any, Any]:
        if level and not self.goes_through_every_bar:
            raise TypeError("a PerpNestedExecutor is the outermost one, or inside of another one of these")
        return (yield from super()._collect_data(trade_decision, level))
