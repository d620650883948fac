"""OKX's streams, over cryptofeed. The only file of the collector that knows cryptofeed, or spells OKX.

A cryptofeed OKX feed is run once per connection. What cryptofeed does not do, or does in a way that loses data, is done
here and by the listener:

- its reconnect loop is not used (unbounded back-off, no delay after a clean close): every connection is opened once,
  and `run` returns at every end of it;
- a bad message ends nothing: it is reported as unreadable, and the connection stays;
- subscribing is not its business: requests for the difference to what is wanted are sent on the open connection;
- a pong is not data: `liveness.py` decides whether a subscription is alive.
"""

import asyncio
import re
import ssl
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from aiolimiter import AsyncLimiter
from cryptofeed.connection import AsyncConnection, WebsocketEndpoint
from cryptofeed.defines import CANDLES, FUNDING
from cryptofeed.exchanges.okx import OKX
from cryptofeed.symbols import Symbols

from services.collector.metrics import CONNECTS, FRAMES, OPERATIONS
from services.collector.stream.connection import (
    Notice,
    Observation,
    Observe,
    Opened,
    Operation,
    Rejected,
    Row,
    Subscribed,
    TooManyRequests,
    Unreadable,
    WillClose,
)
from services.collector.stream.liveness import Patience
from shared.datasets.registry import AnyEvent
from shared.exchanges.base import ExchangeError, Page, RowError
from shared.exchanges.okx.candles import PlainFrame, candles_of, plain_frame
from shared.exchanges.okx.decoding import decode_rows
from shared.exchanges.okx.funding import funding_of
from shared.exchanges.okx.names import inst_id_of, symbol_of
from shared.exchanges.proxy import Proxy, proxy_for
from shared.exchanges.tls import tls_context
from shared.symbol import Symbol

ARGS_PER_FRAME = 100
"""About 5 kB; OKX closes a connection that sends a frame of more than 64 kB."""
OPERATIONS_PER_HOUR = 480
"""Subscribe and unsubscribe requests that OKX takes per connection."""
CONNECTS_PER_SECOND = 2.5
"""OKX takes 3 new connections per second and IP."""
MOST_BYTES = 4_000_000
"""Of one frame; a larger one ends the connection (close code 1009). Real ones have some hundred bytes."""
_WRITE_SECONDS = 10.0
"""A frame of 5 kB that cannot be handed over in this time meets a dead peer."""
_SHOWN = 4000
"""Characters of an unreadable frame that are kept."""
_TOO_MANY_REQUESTS = "60014"
_UPGRADE = "64008"
"""The connection will be closed for a service upgrade."""


@dataclass(frozen=True)
class Endpoint:
    """Where OKX streams, and the pace at which connections to it may be opened, shared by all."""

    base_url: str
    tls: Callable[[], ssl.SSLContext]
    connects: AsyncLimiter

    @property
    def proxy(self) -> Proxy | None:
        """Return the proxy that the environment names for it."""
        return proxy_for(self.base_url)


ReadPlain = Callable[[str, str, Mapping[str, Symbol], Callable[[], tuple[datetime, datetime]]], PlainFrame | None]
"""(frame, channel, instId → symbol, our clock and the exchange's at its latest) → what it means, where it is plain."""


@dataclass(frozen=True, kw_only=True)
class OkxStream:
    """A channel of OKX: what it is to the collector, to cryptofeed, and on the wire."""

    name: str
    covered: str
    patience: Patience
    cryptofeed: str
    """The channel's name in cryptofeed."""
    path: str
    prefix: str
    """How cryptofeed's spelling of the channel begins."""
    channel: str
    """The channel's name in requests and frames."""
    read: Callable[[str, object, datetime, datetime], Page[AnyEvent]]
    """(instId, row, receive time, the exchange's clock at its latest) → what it means."""
    endpoint: Endpoint
    now: Callable[[], datetime]
    read_plain: ReadPlain | None = None
    """Reads a frame in which nothing is odd at once; None: `read` has to, row by row."""
    most_symbols: int = ARGS_PER_FRAME
    requests_per_hour: int = OPERATIONS_PER_HOUR

    @property
    def proxy(self) -> Proxy | None:
        """Return the proxy that connections go through."""
        return self.endpoint.proxy

    def connect(self, observe: Observe) -> "OkxConnection":
        """Make a connection that reports to `observe`; it opens when it runs."""
        return OkxConnection(self, observe)


def open_streams(base_url: str, *, ca_file: Path | None, now: Callable[[], datetime]) -> Mapping[str, OkxStream]:
    """Make the streams of candles and funding. now: the exchange's clock, at its latest."""
    endpoint = Endpoint(base_url, lambda: tls_context(ca_file), AsyncLimiter(1, 1 / CONNECTS_PER_SECOND))
    streams = (
        # Every instrument gets its minute's rows, also where nothing is traded: a partial one up to a few seconds after
        # the minute began, a closed one 0-3 s after its end. So rows are at most some 65 s apart, and a minute and a
        # half of nothing is silence. Of many instruments, something is traded every few seconds.
        OkxStream(
            name="candles",
            covered="its minutes are fetched over REST meanwhile",
            patience=Patience(silence_seconds=95.0, connection_seconds=30.0),
            cryptofeed=CANDLES,
            path="/business",
            prefix="candle",
            channel="candle1m",
            read=_read_candle,
            read_plain=plain_frame,
            endpoint=endpoint,
            now=now,
        ),
        # Pushed every 30 to 90 seconds per instrument: two pushes missed. One late push is no reason to subscribe
        # again, and nothing is lost by waiting: settled rates are fetched over REST.
        OkxStream(
            name="funding",
            covered="its settlements are fetched over REST meanwhile",
            patience=Patience(silence_seconds=185.0, connection_seconds=120.0),
            cryptofeed=FUNDING,
            path="/public",
            prefix="funding-rate",
            channel="funding-rate",
            read=_read_funding,
            endpoint=endpoint,
            now=now,
        ),
    )
    return {stream.name: stream for stream in streams}


def _read_candle(inst_id: str, row: object, received: datetime, now: datetime) -> Page[AnyEvent]:
    return Page(*candles_of(inst_id, [row], source="ws", receive_time=received, exchange_now=now))


def _read_funding(inst_id: str, row: object, received: datetime, now: datetime) -> Page[AnyEvent]:
    return Page(*funding_of(inst_id, row, source="ws", receive_time=received, exchange_now=now))


class _OneConnection(OKX):  # type: ignore[misc]
    """cryptofeed's OKX, for one channel and one connection, with instIds as they are (no symbol loading)."""

    def __init__(self, connection: "OkxConnection", context: ssl.SSLContext) -> None:
        # The constructor wants a symbol table to be there; ours is a pure rule, so an empty one does.
        Symbols.set(OKX.id, {}, {})
        self._connection = connection
        stream, proxy = connection.stream, connection.stream.proxy
        self.websocket_endpoints = [
            WebsocketEndpoint(
                stream.endpoint.base_url + stream.path,
                channel_filter=(stream.prefix,),
                options={
                    "compression": None,
                    "ssl": context,
                    "open_timeout": 10,
                    "close_timeout": 1,
                    "max_size": MOST_BYTES,
                    "proxy": None if proxy is None else proxy.url,  # left to itself it follows SOCKS_PROXY first
                    "ping_interval": None,  # OKX counts its text ping, which cryptofeed sends every 15 s
                },
            )
        ]
        super().__init__(
            symbols=["none"],  # it wants one; the listener decides what is subscribed
            channels=[stream.cryptofeed],
            candle_interval="1m",
            exceptions=[Exception],  # every error comes to whoever runs the connection
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
            await self._connection.stream.endpoint.connects.acquire()
            await open_once()

        conn._open = guarded
        return conn

    async def subscribe(self, connection: AsyncConnection) -> None:
        """Report that the connection is open; what is wanted now is subscribed from outside."""
        self._connection.opened(connection)

    async def message_handler(self, msg: str, conn: AsyncConnection, timestamp: float) -> None:  # noqa: ARG002 - cryptofeed's
        """Take a frame raw, before cryptofeed reads it.

        cryptofeed's objects lack base and quote volume, interval and settled rate, and it loses a whole row for one
        field that is missing.
        """
        self._connection.receive(msg)


class ConnectionEndedError(Exception):
    """The connection is over; opening the next one is the supervisor's decision."""


class OkxConnection:
    """One connection, from its opening to its end; it is never opened a second time."""

    def __init__(self, stream: OkxStream, observe: Observe) -> None:
        self.stream = stream
        self._observe = observe
        self._socket: AsyncConnection | None = None
        self._asked: dict[str, Symbol] = {}
        """instId → symbol of everything asked for on this connection: acks and errors may come late."""
        self._end = asyncio.Event()
        self._why = "ended"
        self._received = FRAMES.labels(stream.name)

    @property
    def is_open(self) -> bool:
        """Return whether requests can be sent."""
        return self._socket is not None and not self._end.is_set()

    def opened(self, socket: AsyncConnection) -> None:
        """Take the socket over."""
        self._socket = socket
        CONNECTS.labels(self.stream.name).inc()
        self._observe(Opened())

    async def run(self) -> str:
        """Open it and read it to its end; return why it ended."""
        try:
            feed = _OneConnection(self, self.stream.endpoint.tls())
        except ExchangeError as error:
            return str(error)
        try:
            await feed.run(self._end)
        except Exception as error:  # noqa: BLE001 - whatever ended it, the answer is the next connection
            return self._why if self._end.is_set() else self._reason(error)
        finally:
            self._socket = None
        return self._why

    def _reason(self, error: Exception) -> str:
        proxy = self.stream.proxy
        if proxy is None or self._socket is not None:
            return _reasons(error)
        return f"{_reasons(error)}, through {proxy}"

    def end(self, why: str) -> None:
        """Let it end."""
        if not self._end.is_set():
            self._why = why
            self._end.set()

    async def send(self, operation: Operation, symbols: Collection[Symbol]) -> None:
        """Send one frame; a connection that cannot be written to ends."""
        if self._socket is None:
            return
        names = {inst_id_of(symbol): symbol for symbol in symbols}
        self._asked |= names
        arguments = [{"channel": self.stream.channel, "instId": name} for name in names]
        OPERATIONS.labels(self.stream.name, operation).inc()
        try:
            async with asyncio.timeout(_WRITE_SECONDS):
                await self._socket.write(msgspec.json.encode({"op": operation, "args": arguments}).decode())
        except Exception as error:  # noqa: BLE001 - whatever the socket says, the answer is the next connection
            self.end(f"not writable: {error!r}")

    def receive(self, text: str) -> None:
        """Take a frame; nothing that it holds may end the connection."""
        if text == "pong":
            return
        try:
            if not self._take_plain(text):
                self._take(text)
        except Exception as error:  # noqa: BLE001 - one bad row must not cost all instruments their connection
            self._observe(Unreadable(text[:_SHOWN], f"{type(error).__name__}: {error}"))

    def _take_plain(self, text: str) -> bool:
        """Take a frame in which nothing is odd, as nearly all are; return whether it was one."""
        stream = self.stream
        if stream.read_plain is None:
            return False
        plain = stream.read_plain(text, stream.channel, self._asked, self._clocks)
        if plain is None:
            return False
        self._received.inc()
        self._observe(Row(plain.symbol, plain.page, partial(_payload_of, text)))
        return True

    def _clocks(self) -> tuple[datetime, datetime]:
        """Return our time, and the exchange's at its latest."""
        return datetime.now(UTC), self.stream.now()

    def _take(self, text: str) -> None:
        frame = _read(text)
        if frame.event is not None:
            self._take_control(frame)
        else:
            self._take_rows(frame)

    def _take_rows(self, frame: "_Frame") -> None:
        if frame.arg is None or frame.arg.channel != self.stream.channel or not frame.arg.instId:
            raise FrameError("neither a control frame nor rows of this channel")
        if frame.data is None:
            raise FrameError("a frame of this channel that has no list in `data`")
        received, now = self._clocks()
        for row in frame.data:
            self._received.inc()
            self._observe(self._row(frame.arg.instId, row, received, now))

    def _row(self, inst_id: str, row: object, received: datetime, now: datetime) -> Row | Unreadable:
        payload = _payload(inst_id, row)
        try:
            symbol = self._asked.get(inst_id) or symbol_of(inst_id)
        except RowError as error:
            return Unreadable(payload, str(error))
        return Row(symbol, self.stream.read(inst_id, row, received, now), payload)

    def _take_control(self, frame: "_Frame") -> None:
        if (observation := self._control(frame)) is not None:
            self._observe(observation)

    def _control(self, frame: "_Frame") -> Observation | None:
        code, text = str(frame.code), str(frame.msg)
        match frame.event:
            case "subscribe" if frame.arg is not None and frame.arg.instId in self._asked:
                return Subscribed([self._asked[frame.arg.instId]])
            case "unsubscribe":
                return None
            case "error" if code == _TOO_MANY_REQUESTS:
                return TooManyRequests(code, text)
            case "error":
                return Rejected(self._named_in(text), code, text)
            case "notice" if code == _UPGRADE:
                return WillClose(text)
            case _:
                return Notice(frame.as_text())

    def _named_in(self, text: str) -> list[Symbol]:
        """Return the symbols that an error names: OKX does so only inside its text.

        Names are matched as whole words: SATS-USDT-SWAP is not in 1000SATS-USDT-SWAP.
        """
        return [
            symbol
            for name, symbol in self._asked.items()
            if name in text and re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)
        ]


class FrameError(ValueError):
    """A frame that is none of those that the exchange sends."""


class _Arg(msgspec.Struct):
    channel: str = ""
    instId: str = ""  # noqa: N815 - the exchange's spelling


class _Frame(msgspec.Struct, omit_defaults=True):
    """What the exchange sends: an ack, a rejection or a notice (`event`), or rows (`arg` and `data`)."""

    event: str | None = None
    code: str | int | None = None
    msg: str | None = None
    arg: _Arg | None = None
    data: list[Any] | None = None

    def as_text(self) -> str:
        """Return it as JSON, without what is empty."""
        return msgspec.json.encode(self).decode()


def _payload(inst_id: str, row: object) -> dict[str, object]:
    return {"instId": inst_id, "row": row}


def _payload_of(text: str) -> dict[str, object]:
    """Return the payload of a frame with one row."""
    frame = _read(text)
    if frame.arg is None or not frame.data:
        raise FrameError("a frame without a row")
    return _payload(frame.arg.instId, frame.data[0])


def _read(frame: str) -> _Frame:
    try:
        return decode_rows(frame, _Frame)
    except ValueError as error:
        raise FrameError(f"no frame of the exchange: {type(error).__name__}: {error}") from error


def _reasons(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_reasons(inner) for inner in error.exceptions)
    return f"{type(error).__name__}: {error}"
