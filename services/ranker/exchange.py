"""What the ranker asks the exchange: all swaps and all funding rates, in two calls. I/O."""

from datetime import UTC, datetime

import structlog

from services.ranker.metrics import UNREADABLE
from shared.events import PredictedFundingRate
from shared.exchange import ExchangeClient, Instrument, SpellingError, is_swap, predicted_of

log = structlog.get_logger()


async def fetch(exchange: ExchangeClient) -> tuple[dict[str, Instrument], list[PredictedFundingRate]]:
    """Return all swaps and what each pays. A row that makes no sense is named and left out.

    Raises `ExchangeError` after its retries.
    """
    instruments = await exchange.instruments()
    rates = []
    received = datetime.now(UTC)
    for row in await exchange.funding_rates():
        if not is_swap(row.get("instId", "")):
            continue  # X-Perps and dated futures pay funding too, and are not ours
        try:
            rates.append(predicted_of(row, source="rest", receive_time=received))
        except SpellingError as error:
            UNREADABLE.inc()
            log.warning("funding row left out", inst_id=row.get("instId"), error=str(error))
    return instruments, rates
