"""The stream of the second exchange: names like `btc/usdt`, no closed flag, answers to whole requests only."""

import asyncio
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from services.collector.stream import connection as protocol
from services.collector.stream.liveness import Patience
from shared.datasets.candle import Candle
from shared.datasets.registry import AnyEvent
from shared.datasets.row import Source
from shared.exchanges.base import Page, Refused
from shared.grid import MINUTE
from shared.symbol import Symbol, suffix_of, symbol_at
from tests.support.other_channel.trade import Trade

EXCHANGE = "other"


def name_of(symbol: str) -> str:
    return symbol.removesuffix(suffix_of(EXCHANGE)).replace("_", "/").lower()


def symbol_of(name: str) -> Symbol:
    return symbol_at(EXCHANGE, name.replace("/", "_").upper())


@dataclass(frozen=True, kw_only=True)
class OtherStream:
    url: str
    now: Callable[[], datetime]
    name: str = "candles"
    topic: str = "@1m"
    covered: str = "its minutes are fetched over REST meanwhile"
    patience: Patience = field(default_factory=lambda: Patience(silence_seconds=inf, connection_seconds=120.0))
    most_symbols: int = 8
    requests_per_hour: int = 1_000
    proxy: None = None

    def connect(self, observe: protocol.Observe) -> "OtherConnection":
        return OtherConnection(self, observe)


def open_streams(base_url: str, *, ca_file: Path | None, now: Callable[[], datetime]) -> Mapping[str, protocol.Stream]:
    assert ca_file is None, "it speaks no TLS"
    url = base_url.replace("wss://", "ws://")
    return {
        "candles": OtherStream(url=url, now=now),
        "trades": OtherStream(url=url, now=now, name="trades", topic="@trades"),
    }


@dataclass
class OtherConnection:
    stream: OtherStream
    observe: protocol.Observe
    _socket: ClientConnection | None = None
    _requests: dict[int, tuple[protocol.Operation, Collection[Symbol]]] = field(default_factory=dict)
    _why: str | None = None
    _closing: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        return self._socket is not None and self._why is None

    async def run(self) -> str:
        try:
            async with connect(self.stream.url, proxy=None) as self._socket:
                self.observe(protocol.Opened())
                async for text in self._socket:
                    self.observe(self._observation(str(text)))
        except (OSError, WebSocketException) as error:
            return self._why or f"{type(error).__name__}: {error}"
        finally:
            self._socket = None
        return self._why or "closed by the exchange"

    def end(self, why: str) -> None:
        if self.is_open and self._socket is not None:
            self._why, self._closing = why, asyncio.create_task(self._socket.close())

    async def send(self, operation: protocol.Operation, symbols: Collection[Symbol]) -> None:
        number, topics = len(self._requests), [name_of(symbol) + self.stream.topic for symbol in symbols]
        self._requests[number] = operation, symbols
        try:
            if self._socket is not None:
                await self._socket.send(json.dumps({"no": number, "do": operation, "topics": topics}))
        except WebSocketException as error:
            self.end(f"not writable: {error}")

    def _observation(self, text: str) -> protocol.Observation:
        try:
            frame = json.loads(text)
            if "topic" not in frame:
                return protocol.WillClose(frame["bye"]) if "bye" in frame else self._answer(frame)
            symbol = symbol_of(frame["topic"].partition("@")[0])
            return protocol.Row(symbol, self._page(symbol, frame), frame)
        except (ValueError, LookupError, TypeError) as error:
            return protocol.Unreadable(text, f"{type(error).__name__}: {error}")

    def _answer(self, frame: dict[str, Any]) -> protocol.Observation:
        (operation, symbols), status = self._requests[frame["no"]], str(frame["status"])
        if status == "slow down":
            return protocol.TooManyRequests(status, "wait a little")
        if operation == "unsubscribe":
            return protocol.Notice(f"unsubscribe: {status}")
        return protocol.Subscribed(symbols) if status == "ok" else protocol.Rejected(symbols, status, "", together=True)

    def _page(self, symbol: Symbol, frame: dict[str, Any]) -> Page[AnyEvent]:
        if "trade" in frame:
            return Page([trade(symbol, frame["trade"], "ws")])
        opened = datetime.fromtimestamp(frame["open"], UTC)
        if datetime.fromtimestamp(frame["sent"], UTC) < opened + MINUTE:
            return Page([], partial=[opened])
        if opened > self.stream.now() + 2 * MINUTE:
            return Page([], [Refused(frame, "from the future", opened)])
        return Page([candle(symbol, opened, frame["bar"], "ws")])


def trade(symbol: Symbol, row: list[Any], source: Source) -> Trade:
    """Read number, time and price."""
    number, seconds, price = row
    came = {"trade_time": datetime.fromtimestamp(seconds, UTC), "receive_time": datetime.now(UTC)}
    return Trade(exchange=EXCHANGE, symbol=symbol, trade_id=number, price=float(price), source=source, **came)


def candle(symbol: Symbol, opened: datetime, bar: list[str], source: Source) -> Candle:
    """Read open, high, low, close and volume."""
    first, high, low, last, volume = map(float, bar)
    values: dict[str, Any] = {"open": first, "high": high, "low": low, "close": last, "volume": volume}
    values |= {"amount": volume * last, "contracts": volume, "open_time": opened, "receive_time": datetime.now(UTC)}
    return Candle(exchange=EXCHANGE, symbol=symbol, interval="1m", source=source, **values)
