"""The live streams, over cryptofeed. The only file that knows cryptofeed.

One cryptofeed OKX feed per channel, run once per connection by our own supervisor. What cryptofeed does not do, or does
in a way that loses data, is done here:

- its reconnect loop is not used (unbounded back-off, no delay after a clean close): every connection is opened once,
  and every end of it comes back to `Stream.run`, which waits capped and jittered, for ever;
- a bad message ends nothing: it is counted, set aside, and the connection lives on;
- a change of the set is a frame on the live connection; a reconnect takes the new set, so nobody who stays is dropped;
- a pong is not data: a connection on which no data arrives is ended by our own watch.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog
from aiolimiter import AsyncLimiter
from cryptofeed.connection import AsyncConnection, WebsocketEndpoint
from cryptofeed.defines import CANDLES, FUNDING
from cryptofeed.exchanges.okx import OKX
from cryptofeed.symbols import Symbols

from services.collector.metrics import CONNECTS, FRAMES, OPERATIONS, REJECTED, SUBSCRIBED
from shared.backoff import backoff_seconds
from shared.exchange import ExchangeError

log = structlog.get_logger()

ARGS_PER_FRAME = 100
"""About 5 kB; OKX closes a connection that sends a frame of more than 64 kB."""
OPERATIONS_PER_HOUR = 480
"""Subscribe and unsubscribe requests that OKX takes per connection."""
CONNECTS_PER_SECOND = 2.5
"""OKX takes 3 new connections per second and IP."""
_STABLE_SECONDS = 10.0
_PING_SECONDS = 15.0

OnRow = Callable[[str, Any], None]
"""(instId, raw row): must only append; it runs inside cryptofeed's reader."""
OnBad = Callable[[str, str, str], None]
"""(origin, payload, error)."""


class ConnectionEndedError(Exception):
    """The connection is over; opening the next one is the supervisor's decision."""


@dataclass(frozen=True)
class Channel:
    """A channel of OKX: how cryptofeed calls it, where it lives, how it is spelled."""

    name: str
    cryptofeed: str
    path: str
    prefix: str
    argument: str
    silence_seconds: float
    """Without data for this long the connection is dead, whatever its pongs say."""


CHANNELS = {
    # Forming rows come at least every few seconds on any instrument that trades.
    "candles": Channel("candles", CANDLES, "/business", "candle", "candle1m", 30.0),
    # Pushed every 30 to 90 seconds per instrument.
    "funding": Channel("funding", FUNDING, "/public", "funding-rate", "funding-rate", 120.0),
}


class _OneConnection(OKX):  # type: ignore[misc]
    """cryptofeed's OKX, for one channel and one connection, with instIds as they are (no symbol loading)."""

    def __init__(self, stream: "Stream", context: ssl.SSLContext, first: str) -> None:
        # The constructor wants a symbol table to be there; ours is a pure rule, so an empty one does.
        Symbols.set(OKX.id, {}, {})
        self._stream = stream
        channel = stream.channel
        self.websocket_endpoints = [
            WebsocketEndpoint(
                stream.base_url + channel.path,
                channel_filter=(channel.prefix,),
                options={
                    "compression": None,
                    "ssl": context,
                    "open_timeout": 10,
                    "close_timeout": 1,
                    "ping_interval": None,  # OKX counts its text ping, which cryptofeed sends every 15 s
                },
            )
        ]
        super().__init__(
            symbols=[first],
            channels=[channel.cryptofeed],
            callbacks={channel.cryptofeed: self._on_event},
            candle_interval="1m",
            candle_closed_only=False,  # forming rows are heartbeat and gap detector
            exceptions=[Exception],  # every error comes to the supervisor
            timeout=-1,  # cryptofeed's watchdog takes a pong for data
            shutdown_timeout=2.0,
            config={"log": {"disabled": True}},
        )

    async def _setup(self) -> None:
        """Load no symbols: six REST calls whose failure would end the feed."""

    def std_symbol_to_exchange_symbol(self, symbol: Any) -> str:
        """Keep instIds: a symbol listed a minute ago must not be unknown."""
        return str(symbol)

    def exchange_symbol_to_std_symbol(self, symbol: str) -> str:
        """Keep instIds."""
        return symbol

    def _wrap_connection(self, conn: AsyncConnection) -> AsyncConnection:
        """Let a connection be opened once: after a clean close cryptofeed would reopen it without any delay."""
        open_once, opened = conn._open, False

        async def guarded() -> None:
            nonlocal opened
            if opened:
                raise ConnectionEndedError("closed by the exchange")
            opened = True
            await self._stream.connects.acquire()
            await open_once()

        conn._open = guarded
        return conn

    async def subscribe(self, connection: AsyncConnection) -> None:
        """Subscribe what is wanted now, not what was wanted when the feed was made."""
        await self._stream.connected(connection)

    async def message_handler(self, msg: str, conn: AsyncConnection, timestamp: float) -> None:
        """Take a frame; nothing that it holds may end the connection."""
        if msg == "pong":
            return
        if '"event"' in msg and self._stream.on_control(msg):
            return
        try:
            await super().message_handler(msg, conn, timestamp)
        except Exception as error:  # noqa: BLE001 - one bad row must not cost all instruments their connection
            self._stream.on_bad_frame(msg, error)

    async def _on_event(self, event: Any, _: float) -> None:
        # cryptofeed's objects lack base and quote volume, interval and settled rate; the raw row has them.
        row = event.raw
        if self._stream.channel.name == "candles":
            open_ms = str(round(event.start * 1000))
            row = next(row for row in event.raw["data"] if row[0] == open_ms)
        self._stream.on_data(event.symbol, row)


@dataclass
class Stream:
    """One channel, kept alive for ever. `wanted` tells the instIds at any time."""

    channel: Channel
    base_url: str
    tls: Callable[[], ssl.SSLContext]
    wanted: Callable[[], Sequence[str]]
    on_row: OnRow
    on_bad: OnBad
    connects: AsyncLimiter
    subscribed: set[str] = field(default_factory=set)
    """Acknowledged by the exchange on this connection."""
    rejected: dict[str, str] = field(default_factory=dict)
    last_data: float | None = None
    """Monotonic seconds."""
    connections: int = 0
    connection: AsyncConnection | None = None
    _operations: AsyncLimiter = field(default_factory=lambda: AsyncLimiter(OPERATIONS_PER_HOUR, 3600))
    _asked: set[str] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _end: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Connect, read, and connect again, until cancelled."""
        attempt = 0
        while True:
            await self._until_wanted()
            began = time.monotonic()
            reason = await self._run_once()
            attempt = 0 if time.monotonic() - began > _STABLE_SECONDS else attempt + 1
            wait = backoff_seconds(attempt, first=0.1)
            log.warning("disconnected", channel=self.channel.name, reason=reason, again_in_seconds=round(wait, 2))
            await asyncio.sleep(wait)

    async def _until_wanted(self) -> None:
        while not self.wanted():
            self._changed.clear()
            await self._changed.wait()

    async def _run_once(self) -> str:
        """Run one connection to its end; return why it ended."""
        try:
            feed = _OneConnection(self, self.tls(), self.wanted()[0])
        except ExchangeError as error:
            return str(error)
        end = self._end = asyncio.Event()
        watch = asyncio.create_task(self._watch(end))
        try:
            await feed.run(end)
        except Exception as error:  # noqa: BLE001 - the top of the loop: whatever ended it, connect again
            return _reasons(error)
        finally:
            watch.cancel()
            self.connection = None
            self.subscribed.clear()
            SUBSCRIBED.labels(self.channel.name).set(0)
        return "given up: no data, or not writable" if end.is_set() else "ended"

    async def _watch(self, end: asyncio.Event) -> None:
        """End a connection that brings no data: found by its data's age, never by its pongs."""
        began = time.monotonic()
        while True:
            await asyncio.sleep(1.0)
            newest = max(began, self.last_data or began)
            if time.monotonic() - newest > self.channel.silence_seconds:
                end.set()
                return

    async def connected(self, connection: AsyncConnection) -> None:
        """Subscribe everything that is wanted on a fresh connection."""
        self.connections += 1
        CONNECTS.labels(self.channel.name).inc()
        self.connection = connection
        self._operations = AsyncLimiter(OPERATIONS_PER_HOUR, 3600)
        self._asked = set()
        self.rejected = {}
        log.info("connected", channel=self.channel.name, instruments=len(self.wanted()))
        await self.reconcile()

    async def reconcile(self) -> None:
        """Bring the live connection to the wanted set: frames for the difference only, those that stay untouched.

        A connection that cannot be written to is ended: the next one takes the new set.
        """
        self._changed.set()
        wanted = set(self.wanted())
        added, removed = wanted - self._asked, self._asked - wanted
        self._asked = wanted
        try:
            await self._send("subscribe", added)
            await self._send("unsubscribe", removed)
        except Exception as error:  # noqa: BLE001 - whatever the socket says, the answer is a new one
            log.warning("set not told, connecting anew", channel=self.channel.name, error=repr(error))
            self._end.set()

    async def _send(self, operation: str, instruments: Iterable[str]) -> None:
        ordered = sorted(instruments)
        for start in range(0, len(ordered), ARGS_PER_FRAME):
            if self.connection is None:
                return
            await self._operations.acquire()
            arguments = [
                {"channel": self.channel.argument, "instId": inst_id}
                for inst_id in ordered[start : start + ARGS_PER_FRAME]
            ]
            OPERATIONS.labels(self.channel.name, operation).inc()
            await self.connection.write(msgspec.json.encode({"op": operation, "args": arguments}).decode())

    def on_data(self, inst_id: str, row: Any) -> None:
        """Note that data came, and hand it on."""
        self.last_data = time.monotonic()
        FRAMES.labels(self.channel.name).inc()
        self.on_row(inst_id, row)

    def on_control(self, frame: str) -> bool:
        """Take acks, rejections and notices; return whether the frame was one."""
        try:
            message = msgspec.json.decode(frame, type=dict[str, Any])
        except msgspec.MsgspecError:
            return False
        event = message.get("event")
        inst_id = str((message.get("arg") or {}).get("instId", ""))
        if event == "subscribe":
            self.subscribed.add(inst_id)
        elif event == "unsubscribe":
            self.subscribed.discard(inst_id)
        elif event == "error":
            self._on_rejection(str(message.get("code")), str(message.get("msg")))
        elif event is not None:
            log.warning("notice", channel=self.channel.name, notice=message)
        SUBSCRIBED.labels(self.channel.name).set(len(self.subscribed))
        return event is not None

    def _on_rejection(self, code: str, text: str) -> None:
        """Note whom a rejection concerns: the frame has no argument, the instId stands only inside its text."""
        REJECTED.labels(self.channel.name, code).inc()
        concerned = [inst_id for inst_id in self._asked - self.subscribed if inst_id in text]
        for inst_id in concerned:
            self.rejected[inst_id] = code
        log.warning("rejected", channel=self.channel.name, code=code, text=text, instruments=concerned)

    def on_bad_frame(self, frame: str, error: Exception) -> None:
        """Set a frame aside that made no sense; the connection lives on."""
        self.on_bad(f"collector:{self.channel.name}", frame[:4000], f"{type(error).__name__}: {error}")


def _reasons(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_reasons(inner) for inner in error.exceptions)
    return f"{type(error).__name__}: {error}"
