"""One connection to the exchange's stream, over cryptofeed. The only file that knows cryptofeed.

A cryptofeed OKX feed is run once per connection. What cryptofeed does not do, or does in a way that loses data, is done
here and in `live.py`:

- its reconnect loop is not used (unbounded back-off, no delay after a clean close): every connection is opened once,
  and every end of it comes back to whoever runs it;
- a bad message ends nothing: it is counted, set aside, and the connection lives on;
- subscribing is not its business: frames for the difference to what is wanted are sent on the live connection;
- a pong is not data: whether a subscription lives is judged by `liveness.py`.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from aiolimiter import AsyncLimiter
from cryptofeed.connection import AsyncConnection, WebsocketEndpoint
from cryptofeed.defines import CANDLES, FUNDING
from cryptofeed.exchanges.okx import OKX
from cryptofeed.symbols import Symbols

from services.collector.metrics import CONNECTS, FRAMES, OPERATIONS
from services.collector.stream.liveness import Limits
from shared.exchanges.proxy import Proxy, proxy_for
from shared.exchanges.registry import ExchangeError, decode_rows

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


class ConnectionEndedError(Exception):
    """The connection is over; opening the next one is the supervisor's decision."""


@dataclass(frozen=True)
class Channel:
    """A channel of OKX: how cryptofeed calls it, where it lives, how it is spelled, how patient one is with it."""

    name: str
    cryptofeed: str
    path: str
    prefix: str
    argument: str
    covered: str
    """What makes up for what does not come, for whoever operates the system."""
    limits: Limits


CHANNELS = {
    # Every instrument gets its minute's rows, also where nothing is traded: a forming one up to a few seconds after the
    # minute began, a closed one 0-3 s after its end. So rows are at most some 65 s apart, and a minute and a half of
    # nothing is silence. On many instruments something is traded every few seconds.
    "candles": Channel(
        "candles",
        CANDLES,
        "/business",
        "candle",
        "candle1m",
        "its minutes are fetched over REST meanwhile",
        Limits(silence_seconds=95.0, connection_seconds=30.0),
    ),
    # Pushed every 30 to 90 seconds per instrument: two pushes missed. One late push is no reason to subscribe anew, and
    # nothing is lost by waiting: settled rates are asked for over REST.
    "funding": Channel(
        "funding",
        FUNDING,
        "/public",
        "funding-rate",
        "funding-rate",
        "its settlements are fetched over REST meanwhile",
        Limits(silence_seconds=185.0, connection_seconds=120.0),
    ),
}


@dataclass(frozen=True)
class Endpoint:
    """Where the exchange streams, and the pace at which connections to it may be opened, shared by all."""

    base_url: str
    tls: Callable[[], ssl.SSLContext]
    connects: AsyncLimiter

    @property
    def proxy(self) -> Proxy | None:
        """Return the proxy that the environment names for it."""
        return proxy_for(self.base_url)


class Listener(Protocol):
    """Who is told what happens on a connection; called inside cryptofeed's reader, so it only notes."""

    def on_open(self) -> None:
        """Take that the connection is there and can be written to."""

    def on_control(self, message: dict[str, Any]) -> None:
        """Take an ack, a rejection or a notice."""

    def on_row(self, inst_id: str, row: Any) -> None:
        """Take a raw row."""

    def on_bad_frame(self, frame: str, error: Exception) -> None:
        """Take a frame that made no sense; the connection lives on."""


class _OneConnection(OKX):  # type: ignore[misc]
    """cryptofeed's OKX, for one channel and one connection, with instIds as they are (no symbol loading)."""

    def __init__(self, connection: "Connection", context: ssl.SSLContext) -> None:
        # The constructor wants a symbol table to be there; ours is a pure rule, so an empty one does.
        Symbols.set(OKX.id, {}, {})
        self._connection = connection
        channel, proxy = connection.channel, connection.endpoint.proxy
        self.websocket_endpoints = [
            WebsocketEndpoint(
                connection.endpoint.base_url + channel.path,
                channel_filter=(channel.prefix,),
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
            symbols=["none"],  # it wants one; what is subscribed is decided in `live.py`
            channels=[channel.cryptofeed],
            candle_interval="1m",
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
            await self._connection.endpoint.connects.acquire()
            await open_once()

        conn._open = guarded
        return conn

    async def subscribe(self, connection: AsyncConnection) -> None:
        """Tell that the connection is open; what is wanted now is subscribed from outside."""
        self._connection.opened(connection)

    async def message_handler(self, msg: str, conn: AsyncConnection, timestamp: float) -> None:  # noqa: ARG002 - cryptofeed's
        """Take a frame; nothing that it holds may end the connection.

        The raw rows are taken, before cryptofeed reads them: its objects lack base and quote volume, interval and
        settled rate, and it loses a whole row for one field that is missing.
        """
        if msg == "pong":
            return
        try:
            self._take(_read(msg))
        except Exception as error:  # noqa: BLE001 - one bad row must not cost all instruments their connection
            self._connection.listener.on_bad_frame(msg, error)

    def _take(self, frame: "_Frame") -> None:
        connection = self._connection
        if frame.event is not None:
            connection.listener.on_control(frame.as_control())
            return
        if frame.arg is None or frame.arg.channel != connection.channel.argument or not frame.arg.instId:
            raise FrameError("neither a control frame nor rows of this channel")
        if frame.data is None:
            raise FrameError("a frame of this channel that has no list in `data`")
        for row in frame.data:
            FRAMES.labels(connection.channel.name).inc()
            connection.listener.on_row(frame.arg.instId, row)


class Connection:
    """One connection, from its opening to its end; it is never opened a second time."""

    def __init__(self, channel: Channel, endpoint: Endpoint, listener: Listener) -> None:
        self.channel = channel
        self.endpoint = endpoint
        self.listener = listener
        self._socket: AsyncConnection | None = None
        self._end = asyncio.Event()
        self._why = "ended"

    @property
    def is_open(self) -> bool:
        """Return whether frames can be sent."""
        return self._socket is not None and not self._end.is_set()

    def opened(self, socket: AsyncConnection) -> None:
        """Take the socket over."""
        self._socket = socket
        CONNECTS.labels(self.channel.name).inc()
        self.listener.on_open()

    async def run(self) -> str:
        """Open it and read it to its end; return why it ended."""
        try:
            feed = _OneConnection(self, self.endpoint.tls())
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
        proxy = self.endpoint.proxy
        if proxy is None or self._socket is not None:
            return _reasons(error)
        return f"{_reasons(error)}, through {proxy}"

    def end(self, why: str) -> None:
        """Let it end."""
        if not self._end.is_set():
            self._why = why
            self._end.set()

    async def send(self, operation: str, inst_ids: Iterable[str]) -> None:
        """Send one frame; a connection that cannot be written to ends."""
        if self._socket is None:
            return
        arguments = [{"channel": self.channel.argument, "instId": inst_id} for inst_id in inst_ids]
        OPERATIONS.labels(self.channel.name, operation).inc()
        try:
            async with asyncio.timeout(_WRITE_SECONDS):
                await self._socket.write(msgspec.json.encode({"op": operation, "args": arguments}).decode())
        except Exception as error:  # noqa: BLE001 - whatever the socket says, the answer is the next connection
            self.end(f"not writable: {error!r}")


class FrameError(ValueError):
    """A frame that is none of those that the exchange sends."""


class _Arg(msgspec.Struct):
    channel: str = ""
    instId: str = ""  # noqa: N815 - the exchange's spelling


class _Frame(msgspec.Struct):
    """What the exchange sends: an ack, a rejection or a notice (`event`), or rows (`arg` and `data`)."""

    event: str | None = None
    code: str | int | None = None
    msg: str | None = None
    arg: _Arg | None = None
    data: list[Any] | None = None

    def as_control(self) -> dict[str, Any]:
        """Return it in plain values, without what is empty."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return {name: value for name, value in values.items() if value is not None}


def _read(frame: str) -> _Frame:
    try:
        return decode_rows(frame, _Frame)
    except ValueError as error:
        raise FrameError(f"no frame of the exchange: {type(error).__name__}: {error}") from error


def _reasons(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_reasons(inner) for inner in error.exceptions)
    return f"{type(error).__name__}: {error}"
