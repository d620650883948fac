"""What an account holds: contracts, signed, and the money that flowed within the bar."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from qlib.backtest.decision import Order
from qlib.backtest.position import Position

#: What remains of a position below this share of the trade that closed it is rounding.
_DUST = 1e-12


def _per_symbol() -> defaultdict[str, float]:
    return defaultdict(float)


@dataclass
class Flows:
    """The money that flowed within one bar, per symbol, in quote currency."""

    opening: dict[str, float] = field(default_factory=dict)
    """Value (amount x last known price) of what was held when the bar opened."""
    funding: defaultdict[str, float] = field(default_factory=_per_symbol)
    """Received; negative where paid."""
    fee: defaultdict[str, float] = field(default_factory=_per_symbol)
    """Paid; negative where a maker was paid a rebate."""
    slippage: defaultdict[str, float] = field(default_factory=_per_symbol)
    """Lost against the price without slippage."""
    turnover: defaultdict[str, float] = field(default_factory=_per_symbol)
    """Value of what was bought and sold."""
    bought: defaultdict[str, float] = field(default_factory=_per_symbol)
    """Value of what was bought less value of what was sold."""
    liquidated: list[str] = field(default_factory=list)
    delisted: list[str] = field(default_factory=list)
    """Closed since their lives ended."""
    unfollowed: list[str] = field(default_factory=list)
    """Closed since the dataset had nothing of them any more, for a reason that it does not know."""
    funding_unknown: list[str] = field(default_factory=list)
    """Held without the dataset knowing whether funding was settled."""


class PerpPosition(Position):
    """Linear perpetual futures: amounts are signed (negative: short) and may be any fraction.

    Value of the account = cash + sum of amount x price. Buying takes the whole notional from the cash and selling adds
    it, so that this sum is what an exchange calls equity: margin + unrealised profit. Cash may therefore be negative.

    Plug it in with `backtest: {pos_type: perps.position.PerpPosition}`; `PerpExecutor` needs it.
    The positions that a backtest returns, one a bar, carry the flows of their bar; `perps.ledger` reads them.
    """

    def __init__(self, cash: float = 0, position_dict: dict[str, dict[str, float] | float] | None = None) -> None:
        """Begin with cash and, where given, positions: {symbol: amount} or {symbol: {"amount": …, "price": …}}."""
        begin = {
            symbol: dict(held) if isinstance(held, dict) else {"amount": float(held)}
            for symbol, held in (position_dict or {}).items()
        }
        super().__init__(cash=cash, position_dict=begin)
        self.flows = Flows()
        self._last_traded: dict[str, float] = {}

    def fill_stock_value(self, start_time: Any, freq: str, last_days: int = 30) -> None:
        """Leave prices of what an account begins with to PerpExecutor.

        Qlib takes the close of the first day here, which is not known before that day is over.
        """

    def begin_bar(self) -> None:
        """Forget the flows of the bar before, and remember what is held."""
        self.flows = Flows(opening=self.notionals())

    def notionals(self) -> dict[str, float]:
        """Return amount x last known price of each symbol held."""
        return {symbol: self.get_stock_amount(symbol) * self.get_stock_price(symbol) for symbol in self.held()}

    def held(self) -> list[str]:
        """Return the symbols held, in alphabetical order: sums then come out the same in every process."""
        return sorted(self.get_stock_list())

    def get_stock_price(self, code: str) -> float:
        """Return the last known price; of a symbol that is not held, the price of its last trade.

        Qlib's account asks for the price of a symbol before a short is opened, and after one is closed.
        """
        held = self.position.get(code)
        return float(self._last_traded[code] if held is None else held["price"])

    def note_trade(self, code: str, price: float) -> None:
        """Remember at what price a symbol is about to be traded."""
        self._last_traded[code] = price

    def update_order(self, order: Order, trade_val: float, cost: float, trade_price: float) -> None:
        """Book a trade: any order may open, add to, reduce, close or flip a position."""
        code = order.stock_id
        held = float(self.get_stock_amount(code))
        after = held + order.deal_amount_delta
        if abs(after) <= _DUST * max(abs(held), order.deal_amount):
            self.position.pop(code, None)
        elif held * after > 0:
            self.position[code]["amount"] = after
        else:  # opened or flipped: held for no bar yet
            self._init_stock(code, after, trade_price)
        self.position["cash"] -= trade_val * order.sign + cost
        self.flows.fee[code] += cost
        self.flows.turnover[code] += trade_val
        self.flows.bought[code] += trade_val * order.sign

    def pay_funding(self, code: str, payment: float) -> None:
        """Pay funding of a symbol; a negative payment is received."""
        self.position["cash"] -= payment
        self.flows.funding[code] -= payment
