"""Margin: what may be opened, and when an account is liquidated. Pure arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

type Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ask:
    """A part of an order, as margin sees it."""

    reducing: float
    """Notional by which the order reduces what is held."""
    opening: float
    """Notional by which it opens something new."""
    cost: float
    """Fee and slippage as a share of the notional."""


def opening_share(equity: float, gross: float, asks: Sequence[Ask], leverage: float) -> float:
    """Return the share (0..1) of everything that orders would open which keeps gross <= leverage x equity.

    Reductions are always done in full. The cap holds after all trades, with fees and slippage paid; every order is cut
    by the same share, so that a portfolio keeps its proportions (cutting the last orders would unbalance one that is
    long and short). Where the account is beyond its leverage already, nothing is opened.
    """
    opening = sum(ask.opening for ask in asks)
    if opening == 0:
        return 1.0
    equity -= sum(ask.reducing * ask.cost for ask in asks)
    gross -= sum(ask.reducing for ask in asks)
    needed = opening + leverage * sum(ask.opening * ask.cost for ask in asks)
    return min(max((leverage * equity - gross) / needed, 0.0), 1.0)


def breach(cash: float, amounts: Floats, begin: Floats, worst: Floats, maintenance: float) -> float | None:
    """Return how far on the way from `begin` to `worst` equity falls below maintenance x gross: 0..1, or None.

    Prices are taken to go from one to the other in step. Equity and gross are linear on that way, so the point is
    exact. 0: the account is below at the beginning already.
    """
    surplus = [cash + amounts @ prices - maintenance * (np.abs(amounts) @ prices) for prices in (begin, worst)]
    if surplus[0] < 0:
        return 0.0
    return float(surplus[0] / (surplus[0] - surplus[1])) if surplus[1] < 0 else None
