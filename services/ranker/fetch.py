"""What the ranker asks the exchange: all swaps and all funding rates, until the answers are whole. I/O."""

import asyncio
from collections.abc import Collection, Iterable

import structlog

from services.ranker.metrics import UNREADABLE
from services.ranker.ranking import Market
from shared.exchanges.base import ExchangeError, Refused
from shared.runtime.service import Service

log = structlog.get_logger()

LOOKS = 3
"""How often the lists are asked for where they lack names that should be there."""
_LOOK_AGAIN_SECONDS = 2.0


class NothingToRankError(ExchangeError):
    """The exchange answered, but with no eligible swap: an answer to distrust, not a universe."""


class ThinListError(ExchangeError):
    """The exchange's lists lack most of the names that should be there."""


async def fetch(service: Service, before: Collection[str]) -> Market:
    """Return all swaps and what each pays; before: who was ranked last. A row that makes no sense is set aside.

    Lists that lack names are asked for again, and their rows put together: one row is easily lost, and a swap that is
    not ranked for it would be gone for hours. Raises `ExchangeError`; then there is nothing to rank.
    """
    market = Market()
    for look in range(LOOKS):
        if look and not await service.pause(_LOOK_AGAIN_SECONDS):
            break
        market = market | await _ask(service)
        if not market.lacking(before):
            break
    if not market.names:
        raise NothingToRankError(
            "the host lists no perpetual swap at all. OKX's European host has X-Perps instead, which are futures: "
            "see OKX_REST_URL"
        )
    if (why := market.thin(before)) is not None:
        raise ThinListError(
            f"the lists hold {len(market.names):,} swaps and {len(market.rates):,} rates, which are not all: {why}"
        )
    return market


async def _ask(service: Service) -> Market:
    listing, predictions = await asyncio.gather(
        service.exchange.instruments(), service.exchange.predictions(now=service.clock.latest())
    )
    _set_aside(service, "instruments", listing.refused)
    _set_aside(service, "funding", predictions.refused)
    return Market(listing.instruments, {rate.symbol: rate for rate in predictions.events}, listing.names)


def _set_aside(service: Service, origin: str, refused: Iterable[Refused]) -> None:
    for one in refused:
        UNREADABLE.inc()
        service.set_aside(origin, one.row, one.reason)
