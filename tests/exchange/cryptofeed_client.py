"""The real cryptofeed, pointed at a simulator: prints what its callbacks get, one JSON line each.

A process of its own: cryptofeed keeps its symbols per process, and aiohttp reads SSL_CERT_FILE when imported.
Arguments: REST address, WebSocket address, CA file, seconds, symbols.
"""

import asyncio
import json
import ssl
import sys

from cryptofeed.connection import RestEndpoint, Routes, WebsocketEndpoint
from cryptofeed.defines import CANDLES, FUNDING
from cryptofeed.exchanges import OKX

REST, WS, CA_FILE, SECONDS, *SYMBOLS = sys.argv[1:]
OPTIONS = {"compression": None, "ssl": ssl.create_default_context(cafile=CA_FILE)}
TYPES = ("SPOT", "SWAP", "FUTURES")


class Redirected(OKX):
    """OKX at another address, otherwise untouched."""

    websocket_endpoints = (
        WebsocketEndpoint(f"{WS}/public", channel_filter=("funding-rate",), options=OPTIONS),
        WebsocketEndpoint(f"{WS}/business", channel_filter=("candle",), options=OPTIONS),
    )
    rest_endpoints = (
        RestEndpoint(
            REST,
            routes=Routes(
                [f"/api/v5/public/instruments?instType={kind}" for kind in TYPES],
                currencies="/api/v5/public/underlying?instType=OPTION",
            ),
        ),
    )


def report(**fields):
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


async def candle(row, _receipt_time):
    report(
        event="candle",
        symbol=row.symbol,
        open_ms=round(row.start * 1000),
        figures=[f"{value:f}" for value in (row.open, row.high, row.low, row.close, row.volume)],
        closed=row.closed,
    )


async def funding(row, _receipt_time):
    report(event="funding", symbol=row.symbol, rate=str(row.rate), next_ms=round(row.next_funding_time * 1000))


async def main():
    mapping = await Redirected.load_symbols()
    report(event="symbols", symbols=sorted(mapping))
    feed = Redirected(
        symbols=SYMBOLS,
        channels=[CANDLES, FUNDING],
        candle_interval="1m",
        callbacks={CANDLES: candle, FUNDING: funding},
        config={"log": {"disabled": True}},
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(float(SECONDS), stop.set)
    await feed.run(stop)


asyncio.run(main())
