"""The predicted rate and the state of a settlement, from the period an instant lies in."""

from typing import Literal

from services.simulator.engine.market import FundingPeriod

PROCESSING_MS = 10_000
"""How long settState reads `processing` after a settlement, in simulated time. OKX: "a short window"."""

RATE_DECIMALS = 16
"""OKX spells funding rates with sixteen decimals."""


def predicted_rate(period: FundingPeriod, at_ms: int) -> float:
    """Blend the last settled rate into the next one over the period: (1 - x) * settled + x * upcoming.

    x is the elapsed share of the period, so the prediction starts at what was just paid and ends at what will be
    paid. Before the first known settlement the settled rate counts as 0 (rate * x); after the last known one the
    upcoming rate is the last one, so the prediction stays there.
    """
    share = (at_ms - period.began_ms) / (period.funding_ms - period.began_ms)
    before = period.settled.rate if period.settled else 0.0
    if before == period.upcoming_rate:
        return before
    return round((1 - share) * before + share * period.upcoming_rate, RATE_DECIMALS)


def settlement_state(period: FundingPeriod, at_ms: int) -> Literal["processing", "settled"]:
    """Return whether the last settlement is still being worked off."""
    if period.settled and at_ms < period.settled.funding_ms + PROCESSING_MS:
        return "processing"
    return "settled"
