"""The market of the second exchange as a process: every bar is a function of pair and minute.

`python -m tests.support.other_exchange.market REST_PORT WS_PORT START SPEED` (START in Unix seconds). Over REST: the
clock, the pairs, the rates, bars oldest first without a closed flag, what was paid, trades with their neighbours. Over
WebSocket: each bar once it is over, but for one minute in seven, and three trades a minute, none in one minute of
eleven, but for two numbers in forty. What is not pushed is only to be had over REST.
"""

import asyncio
import sys
import time
from typing import Any

from aiohttp import web
from websockets.asyncio.server import serve

from tests.support.other_exchange.server import OtherExchange

PAIRS = {"btc/usdt": 30_000.0, "eth/usdt": 2_000.0, "odd/usdt": 1.0}
PERIOD = 3600
PAGE = 200
QUIET = 5
"""Minutes whose number leaves this rest when it is divided by 11 are without a trade."""


def is_pushed(number: int) -> bool:
    """Return whether a trade is pushed."""
    return number % 40 not in {10, 11}


class Market:
    """A clock that runs at a speed, and what was traded."""

    def __init__(self, start: float, speed: float) -> None:
        self.start, self.speed, self.origin = start, speed, time.monotonic()

    def now(self) -> float:
        return self.start + (time.monotonic() - self.origin) * self.speed

    @staticmethod
    def bar(pair: str, opened: int) -> list[str]:
        """Return open, high, low, close and volume of the minute that opens then."""
        base = PAIRS[pair] * (1 + (opened // 60 % 97) / 1000)
        return [f"{value:.6f}" for value in (base, base * 1.01, base * 0.99, base * 1.005, 10 + opened // 60 % 7)]

    @staticmethod
    def rate(pair: str, settled: int) -> str:
        return f"{(sorted(PAIRS).index(pair) + 1) * (1 + settled // PERIOD % 5) / 10_000:.6f}"

    @staticmethod
    def trades(pair: str, minute: int) -> list[list[Any]]:
        """Return number, time and price of the trades of a minute, counted from the epoch."""
        if minute % 11 == QUIET:
            return []
        first = 3 * (minute - (minute + 10 - QUIET) // 11)
        return [
            [first + one, 60 * minute + 5 + 20 * one, f"{PAIRS[pair] * (1 + (first + one) % 89 / 1000):.6f}"]
            for one in range(3)
        ]

    async def clock(self, _: web.Request) -> web.Response:
        return web.json_response({"seconds": self.now()})

    async def pairs(self, _: web.Request) -> web.Response:
        return web.json_response([{"pair": pair, "trading": "on", "since": 0} for pair in PAIRS])

    async def rates(self, _: web.Request) -> web.Response:
        now, settles = self.now(), (int(self.now()) // PERIOD + 1) * PERIOD
        return web.json_response(
            [{"pair": pair, "settles": settles, "rate": self.rate(pair, settles), "as_of": int(now)} for pair in PAIRS]
        )

    async def bars(self, request: web.Request) -> web.Response:
        pair, since, until = request.query["pair"], int(request.query["from"]), int(request.query["to"])
        opens = range(since, min(until, int(self.now())) + 1, 60)[:PAGE]
        return web.json_response([[opened, *self.bar(pair, opened)] for opened in opens])

    async def paid(self, request: web.Request) -> web.Response:
        pair, since = request.query["pair"], int(request.query["from"])
        times = range(-(-since // PERIOD) * PERIOD, int(self.now()), PERIOD)
        return web.json_response([{"at": at, "rate": self.rate(pair, at)} for at in times])

    async def traded(self, request: web.Request) -> web.Response:
        """Answer with the trades of some minutes, and with the ones before and behind."""
        pair, begin, end = request.query["pair"], int(request.query["from"]) // 60, int(request.query["to"]) // 60
        rows = [row for minute in range(begin - 2, end + 2) for row in self.trades(pair, minute)]
        over = [row for row in rows if row[1] <= self.now()]
        before, inside = [row for row in over if row[1] < 60 * begin], [row for row in over if row[1] >= 60 * begin]
        behind = [row for row in inside if row[1] >= 60 * end]
        return web.json_response([*before[-1:], *(row for row in inside if row[1] < 60 * end), *behind[:1]])

    async def push(self, exchange: OtherExchange) -> None:
        """Push every minute as it ends."""
        done = int(self.now()) // 60
        while True:
            await asyncio.sleep(0.02)
            while done < int(self.now()) // 60:
                for pair in PAIRS:
                    if done % 7:
                        await exchange.push(pair, open=done * 60, sent=int(self.now()), bar=self.bar(pair, done * 60))
                    for row in self.trades(pair, done):
                        if is_pushed(row[0]):
                            await exchange.send(f"{pair}@trades", {"trade": row})
                done += 1


async def main(rest_port: int, ws_port: int, start: float, speed: float) -> None:
    market, exchange = Market(start, speed), OtherExchange(set(PAIRS))
    app = web.Application()
    for name in ("clock", "pairs", "rates", "bars", "paid"):
        app.router.add_get(f"/{name}", getattr(market, name))
    app.router.add_get("/trades", market.traded)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", rest_port).start()
    async with serve(exchange.serve, "127.0.0.1", ws_port):
        await market.push(exchange)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
