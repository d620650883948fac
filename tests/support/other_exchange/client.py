"""The second exchange over REST: bars without a closed flag, oldest first; what was paid on request."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import aiohttp

from shared.clock import Sample
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.datasets.instrument import LIVE_STATE, InstrumentDefinition
from shared.datasets.registry import AnyEvent
from shared.exchanges.base import (
    ExchangeUnavailable,
    Instrument,
    Limits,
    Listing,
    Maintenance,
    Page,
    Refused,
    RowError,
    Share,
)
from shared.grid import MINUTE
from shared.symbol import Symbol
from tests.support.other_channel.trade import Trade
from tests.support.other_exchange.stream import EXCHANGE, candle, name_of, symbol_of, trade

HOURS = 1


class OtherClient:
    """An `Exchange` (`shared.exchanges.base`)."""

    name = EXCHANGE
    limits = Limits(page_minutes=200, recent=timedelta(days=1))
    proxy = None

    def __init__(self, base_url: str, *, ca_file: Path | None = None, share: Share = "service") -> None:
        assert share
        assert ca_file is None
        self._base_url = base_url

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def _get(self, path: str, **query: str | int) -> Any:
        try:
            async with self._session.get(self._base_url + path, params=query) as response:
                return await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ExchangeUnavailable(f"{path}: {type(error).__name__}: {error}") from error

    async def measure_time(self) -> Sample:
        sent = time.monotonic()
        said = float((await self._get("/clock"))["seconds"])
        return Sample(sent, time.monotonic(), said)

    async def newest_row_time(self) -> datetime | None:
        return max((_instant(row["as_of"]) for row in await self._get("/rates")), default=None)

    async def instruments(self) -> Listing:
        symbols = [symbol_of(row["pair"]) for row in await self._get("/pairs")]
        listed = {
            symbol: Instrument(
                symbol=symbol, state=LIVE_STATE, contract_type="linear", category="", list_time=None, lot_size="0.1"
            )
            for symbol in symbols
        }
        return Listing(listed, frozenset(symbols), [])

    async def maintenance(self) -> Page[Maintenance]:
        return Page([])

    async def predictions(self, *, now: datetime) -> Page[PredictedFundingRate]:
        rows = [row for row in await self._get("/rates") if _instant(row["as_of"]) <= now + MINUTE]
        return Page(
            [
                PredictedFundingRate(
                    funding_time=_instant(row["settles"]), known_time=_instant(row["as_of"]), **_rate(row["pair"], row)
                )
                for row in rows
            ]
        )

    async def candles(
        self, symbol: Symbol, begin: datetime, end: datetime, *, now: datetime, final: bool = False
    ) -> Page[Candle]:
        since, until = int(begin.timestamp()), int(end.timestamp()) - 1
        rows = await self._get("/bars", pair=name_of(symbol), **{"from": since, "to": until})
        over = [row for row in rows if _instant(row[0]) + MINUTE <= now - timedelta(seconds=0 if final else 1)]
        return Page([candle(symbol, _instant(opened), bar, "rest") for opened, *bar in over])

    async def settlements(
        self, symbol: Symbol, since: datetime, until: datetime, *, now: datetime
    ) -> Page[FundingRate]:
        rows = await self._get("/paid", pair=name_of(symbol), **{"from": int(since.timestamp())})
        found = [
            FundingRate(funding_time=_instant(row["at"]), known_time=now, **_rate(name_of(symbol), row)) for row in rows
        ]
        return Page([one for one in reversed(found) if one.funding_time < until])

    async def trades(self, symbol: Symbol, begin: datetime, end: datetime) -> Page[Trade]:
        """Return the trades of [begin, end), with the one before and the one behind: beyond what an exchange has to."""
        since, until = int(begin.timestamp()), int(end.timestamp())
        rows = await self._get("/trades", pair=name_of(symbol), **{"from": since, "to": until})
        return Page([trade(symbol, row, "rest") for row in rows])

    @staticmethod
    def definition(instrument: Instrument, known: datetime, received: datetime) -> InstrumentDefinition:
        return InstrumentDefinition(
            exchange=EXCHANGE,
            symbol=instrument.symbol,
            state=instrument.state,
            contract_type=instrument.contract_type,
            lot_size=float(instrument.lot_size),
            known_time=known,
            receive_time=received,
        )

    @staticmethod
    def reread(source: str, payload: object, *, received: datetime, now: datetime) -> list[AnyEvent]:
        raise RowError(str(Refused(payload, f"{source} of {received} is not read again at {now}").reason))


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _rate(pair: str, row: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that predicted and settled rates have in common."""
    common = {"exchange": EXCHANGE, "symbol": symbol_of(pair), "interval_hours": HOURS, "source": "rest"}
    return common | {"funding_rate": float(row["rate"]), "receive_time": datetime.now(UTC)}
