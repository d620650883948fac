"""OKX over REST: one limiter per endpoint, retries with a capped and jittered back-off, errors by `code`.

Source of limits, page sizes and codes: OKX v5 documentation; public data needs no key. HTTP 200 does not mean success,
and codes come with varying HTTP statuses, so the code decides; the status counts only where the body is not JSON.
"""

import asyncio
import ssl
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgspec
import stamina
import structlog
from aiolimiter import AsyncLimiter

from shared.clock import Sample
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.datasets.instrument import InstrumentDefinition
from shared.datasets.registry import AnyEvent
from shared.exchanges.base import (
    SURE,
    ExchangeRefused,
    ExchangeUnavailable,
    Instrument,
    Limits,
    Listing,
    Maintenance,
    Page,
    RowError,
    Share,
    UnknownInstrument,
)
from shared.exchanges.okx.candles import candle_window, candles_of
from shared.exchanges.okx.decoding import decode_rows
from shared.exchanges.okx.funding import predictions_of
from shared.exchanges.okx.instruments import definition_of, listing_of
from shared.exchanges.okx.maintenance import maintenances_of
from shared.exchanges.okx.names import EXCHANGE, inst_id_of
from shared.exchanges.okx.set_aside import reread
from shared.exchanges.okx.settlements import settlement_time_of, settlements_of
from shared.exchanges.okx.times import exchange_time_of, newest_time_of
from shared.exchanges.proxy import Proxy, proxy_for
from shared.exchanges.tls import tls_context
from shared.grid import MINUTE, ceil_minute, floor_minute, minutes_between
from shared.metrics import REST_REQUESTS
from shared.symbol import Symbol

log = structlog.get_logger()

PAGE_CANDLES = 300
"""Most rows that candles and history-candles give; more are silently cut."""
PAGE_FUNDING = 400
RECENT_MINUTES = 1430
"""/market/candles holds the newest 1,440 minutes; ten minutes of margin, since the border moves while we ask."""

#: Endpoint → requests allowed per second (documented per 2 s and IP; each client keeps to its share, evenly spaced).
_PER_SECOND = {
    "/api/v5/public/instruments": 10,
    "/api/v5/public/funding-rate": 5,
    "/api/v5/public/funding-rate-history": 5,
    "/api/v5/market/candles": 20,
    "/api/v5/market/history-candles": 10,
    "/api/v5/public/time": 5,
    "/api/v5/system/status": 0.2,
}

#: OKX counts per IP and endpoint, so what our processes take together must stay below each limit. An endpoint has one
#: service that needs much of it (candles and histories the collector, ranks the ranker; a look at the time is nothing),
#: so each service may take the same large share, and the audits, which have time, take a small one beside it. The sum
#: is 95 %: a request may be held up on the way and arrive closer to the next one than it was sent.
SHARES: dict[Share, float] = {
    "service": 0.90,
    "audit": 0.02,  # a page of history every 5 s at most
    "audit by hand": 0.03,  # a page of history every 3.3 s at most
}

MOST_BYTES = 16_000_000
"""Of one answer, as sent and once it is unpacked. The largest real ones, all instruments and all rates, have 0.4 MB."""
_CHUNK_BYTES = 65_536
_REDIRECTS = range(300, 400)

_RETRY_CODES = {"1", "2", "50001", "50004", "50011", "50013", "50026", "50040", "50061"}
_RATE_CODES = {"50011", "50013", "50040", "50061"}
_UNKNOWN_CODES = {"51001", "50047"}
_RATE_PAUSE_SECONDS = 2.0
_RETRY_WAIT_SECONDS = 2.0
"""Short, since what waits here is a hole in the data: at most this long after the exchange is back it is asked for."""


LIMITS = Limits(
    page_minutes=PAGE_CANDLES,
    recent=RECENT_MINUTES * MINUTE,
)


class OkxClient:
    """The public REST endpoints that the platform uses; `share` is the part of each limit that this client takes.

    An `Exchange` (`shared.exchanges.base`). The endpoints are reached through the proxy that the environment names.
    Raises `ProxyError` where that cannot be used.
    """

    name = EXCHANGE
    limits = LIMITS

    def __init__(
        self,
        base_url: str,
        *,
        ca_file: Path | None = None,
        timeout_seconds: float = 10.0,
        share: Share = "service",
    ) -> None:
        self._base_url = base_url
        self._ca_file = ca_file
        self.proxy = proxy_for(base_url)
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._session: aiohttp.ClientSession | None = None
        self._eligible: set[Symbol] = set()
        self._limiters = {path: AsyncLimiter(1, 1 / (rate * SHARES[share])) for path, rate in _PER_SECOND.items()}

    async def __aenter__(self) -> Self:
        # Unpacked here, since aiohttp unpacks whatever comes. Which proxy, `shared.exchanges.proxy` chooses.
        # A time that a cache kept is wrong, and a list that it kept is old.
        headers, proxy = {"Accept-Encoding": "gzip", "Cache-Control": "no-cache"}, self.proxy
        if proxy is not None and self._base_url.startswith("http://"):
            headers |= proxy.headers  # no tunnel: the request itself goes to the proxy
        self._session = aiohttp.ClientSession(
            timeout=self._timeout,
            auto_decompress=False,
            headers=headers,
            proxy=None if proxy is None else proxy.address,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _tls(self) -> ssl.SSLContext:
        # Read again each time a connection may be made: the file may appear, or change, after our start.
        return tls_context(self._ca_file)

    async def measure_time(self) -> Sample:
        """Ask the exchange's time once, without a retry, and note between which of our moments it was said.

        Raises `ExchangeError`, also where the answer holds no time.
        """
        path = "/api/v5/public/time"
        await self._limiters[path].acquire()
        sent = time.monotonic()
        rows = await self._once(path, {})
        received = time.monotonic()
        try:
            return Sample(sent, received, exchange_time_of(rows).timestamp())
        except RowError as error:
            raise ExchangeUnavailable(f"{path}: {error}") from error

    async def newest_row_time(self) -> datetime | None:
        """Return when the exchange made its newest rows, as the rows themselves say; None where they do not."""
        return newest_time_of(await self._funding_rates())

    async def instruments(self) -> Listing:
        """Return the list of swaps, with what of it could not be read.

        A swap that could be in the universe once keeps its name, whatever is listed beside it later.
        """
        rows = await self._get("/api/v5/public/instruments", {"instType": "SWAP"})
        listing = listing_of(rows, self._eligible)
        self._eligible |= {one.symbol for one in listing.instruments.values() if one.eligible}
        return listing

    async def maintenance(self) -> Page[Maintenance]:
        """Return the maintenance windows that are scheduled, under way or about to end."""
        return maintenances_of(await self._get("/api/v5/system/status", {}))

    async def predictions(self, *, now: datetime) -> Page[PredictedFundingRate]:
        """Return what all swaps are expected to pay next, in one request."""
        received = datetime.now(UTC)
        rows = await self._funding_rates()
        return predictions_of(rows, source="rest", receive_time=received, exchange_now=now)

    async def _funding_rates(self) -> list[Any]:
        """Return the raw funding rows of everything that pays funding: all swaps, and X-Perps."""
        return await self._get("/api/v5/public/funding-rate", {"instId": "ANY"})

    async def settlements(
        self, symbol: Symbol, since: datetime, until: datetime, *, now: datetime
    ) -> Page[FundingRate]:
        """Return the settlements of [since, until), newest first; OKX keeps about three months.

        Raises `UnknownInstrument`, and `ExchangeRefused` where page after page comes and none is older than the one
        before.
        """
        rows = await self._funding_history(symbol, since, until)
        return settlements_of(symbol, rows, known_time=now, receive_time=datetime.now(UTC))

    async def _funding_history(self, symbol: Symbol, since: datetime, until: datetime) -> list[Any]:
        """Return the raw rows, page after page.

        A history that ignores its cursor gives older ones, too: they were not asked for, so they are left out.
        """
        path = "/api/v5/public/funding-rate-history"
        found: list[Any] = []
        begin, end = since, until
        while begin < end:
            query = {"instId": inst_id_of(symbol), **candle_window(begin, end), "limit": str(PAGE_FUNDING)}
            page = await self._get(path, query)
            found += [row for row in page if not _is_before(row, since)]
            oldest = min(_times_of(page), default=None)
            if len(page) < _SAFE_FUNDING_PAGE or oldest is None:
                break
            if oldest >= end:
                raise ExchangeRefused(
                    f"{path}: asked for rows before {end.isoformat()}, got none: the cursor is ignored"
                )
            end = oldest
        return found

    async def candles(
        self, symbol: Symbol, begin: datetime, end: datetime, *, now: datetime, final: bool = False
    ) -> Page[Candle]:
        """Return the 1-minute candles that open in [begin, end), newest first.

        The endpoint of the last day is the faster one, and answers nothing for what is older than that, which looks
        like an absence. So where it lacks minutes that are not new any more, the one of history is asked as well.

        Raises `UnknownInstrument`.
        """
        if final or begin < ceil_minute(now) - LIMITS.recent:
            return await self._candles("/api/v5/market/history-candles", symbol, begin, end, now)
        page = await self._candles("/api/v5/market/candles", symbol, begin, end, now)
        there = {candle.open_time for candle in page.events} | {row.at for row in page.refused} | {*page.partial}
        known_until = min(end, floor_minute(now - SURE))
        if all(minute in there for minute in minutes_between(begin, known_until)):
            return page
        older = await self._candles("/api/v5/market/history-candles", symbol, begin, end, now)
        return Page([*page.events, *older.events], [*page.refused, *older.refused], [*page.partial, *older.partial])

    async def _candles(self, path: str, symbol: Symbol, begin: datetime, end: datetime, now: datetime) -> Page[Candle]:
        inst_id = inst_id_of(symbol)
        query = {"instId": inst_id, "bar": "1m", **candle_window(begin, end), "limit": str(PAGE_CANDLES)}
        rows = await self._get(path, query)
        return candles_of(inst_id, rows, source="rest", receive_time=datetime.now(UTC), exchange_now=now)

    @staticmethod
    def definition(instrument: Instrument, known: datetime, received: datetime) -> InstrumentDefinition:
        """Turn what the list says of a swap into a row."""
        return definition_of(instrument, known, received)

    @staticmethod
    def reread(source: str, payload: object, *, received: datetime, now: datetime) -> list[AnyEvent]:
        """Read the payload of a dead letter again: see `parse.reread`."""
        return reread(source, payload, received=received, now=now)

    async def _get(self, path: str, query: Mapping[str, str]) -> list[Any]:
        async for attempt in stamina.retry_context(
            on=ExchangeUnavailable,
            attempts=8,
            timeout=60.0,
            wait_initial=0.2,
            wait_max=_RETRY_WAIT_SECONDS,
            wait_jitter=1.0,
        ):
            with attempt:
                await self._limiters[path].acquire()
                return await self._once(path, query)
        raise AssertionError("unreachable")  # pragma: no cover - retry_context returns or raises

    async def _once(self, path: str, query: Mapping[str, str]) -> list[Any]:
        if self._session is None:
            raise RuntimeError("use the client as a context manager")
        try:
            async with self._session.get(
                self._base_url + path,
                params=query,
                ssl=self._tls(),
                allow_redirects=False,
                proxy_headers=None if self.proxy is None else self.proxy.headers,
            ) as response:
                status = response.status
                if status in _REDIRECTS:
                    where = response.headers.get("Location", "nowhere")[:200]
                    raise ExchangeRefused(f"{path}: redirected to {where}, which is not followed: see OKX_REST_URL")
                body = await _read_body(response, path)
        except (aiohttp.ClientError, TimeoutError, OSError, zlib.error) as error:
            REST_REQUESTS.labels(path, "unreachable").inc()
            raise ExchangeUnavailable(f"{path}: {_why(error, self.proxy)}") from error
        code, message, data = read_envelope(body, status)
        REST_REQUESTS.labels(path, code).inc()
        if code in _RATE_CODES:
            await asyncio.sleep(_RATE_PAUSE_SECONDS)
        raise_for_code(code, message, path)
        return data


async def _read_body(response: aiohttp.ClientResponse, path: str) -> bytes:
    """Read an answer, at most `MOST_BYTES` of it, packed and unpacked. Raises `ExchangeRefused` beyond that."""
    unpack = _UNPACK.get(response.headers.get("Content-Encoding", "identity").lower())
    if unpack is None:
        raise ExchangeRefused(f"{path}: the answer is packed in a way that was not asked for")
    packed, unpacker, body = 0, unpack(), bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        packed += len(chunk)
        body += chunk if unpacker is None else unpacker.decompress(chunk, MOST_BYTES + 1 - len(body))
        if max(packed, len(body)) > MOST_BYTES:
            raise ExchangeRefused(f"{path}: the answer is larger than {MOST_BYTES:,} bytes")
    return bytes(body)


_UNPACK: dict[str, Callable[[], Any]] = {
    "identity": lambda: None,
    "gzip": lambda: zlib.decompressobj(16 + zlib.MAX_WBITS),
}


def _is_before(row: object, begin: datetime) -> bool:
    """Return whether a row has a settlement instant, and it is earlier than `begin`."""
    return any(at < begin for at in _times_of([row]))


def _times_of(rows: Iterable[object]) -> list[datetime]:
    """Return the settlement instants of those rows that have one."""
    found = []
    for row in rows:
        with suppress(RowError):
            found.append(settlement_time_of(row))
    return found


def _why(error: Exception, proxy: Proxy | None) -> str:
    """Say in a user's words why a request came to nothing."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"{proxy} refuses: HTTP {error.status} {error.message[:_SHOWN]}"
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return f"cannot connect to {proxy}: {error.os_error.strerror or error.os_error}"
    return _trouble(error) + (f", through {proxy}" if proxy is not None else "")


def _trouble(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect to {error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
    return f"{type(error).__name__}: {error}"


#: OKX was seen to serve shorter pages than asked for (286 of 300); below this a page is the last one.
_SAFE_FUNDING_PAGE = 200


def read_envelope(body: bytes, status: int) -> tuple[str, str, list[Any]]:
    """Read {"code", "msg", "data"}; a body that is not of this shape (a proxy's error page) is unavailability. Pure.

    A success without a list is not of this shape either: an empty list would say that there is nothing. A value that
    cannot be held costs its row at most, see `decode_rows`.
    """
    try:
        envelope = decode_rows(body, _Envelope)
    except ValueError:  # no JSON, another shape
        return _no_answer(status), f"HTTP {status} without an answer in JSON", []
    code = str(envelope.code)[:_SHOWN]
    if code == _SUCCESS and envelope.data is None:
        return _no_answer(status), f"HTTP {status} with an answer that has no list in `data`", []
    return code, str(envelope.msg)[:_SHOWN], envelope.data or []


def _no_answer(status: int) -> str:
    """Return the code that stands for a body which is no answer; all of these are asked again."""
    return "50011" if status == 429 else "50001"  # noqa: PLR2004 - rate limit


_SUCCESS = "0"


class _Envelope(msgspec.Struct):
    code: str | int = ""
    msg: str | None = ""
    data: list[Any] | None = None


_SHOWN = 200
"""Characters of an answer that an error repeats."""


def raise_for_code(code: str, message: str, path: str) -> None:
    """Raise the error that a code stands for; nothing for success. Pure."""
    if code == _SUCCESS:
        return
    text = f"{path}: code {code}: {message}"
    if code in _RETRY_CODES:
        raise ExchangeUnavailable(text)
    if code in _UNKNOWN_CODES:
        raise UnknownInstrument(text)
    raise ExchangeRefused(text)
