"""The WebSocket port: connections, their operations, and one pump that sends what is due to all who asked."""

import asyncio
import contextlib
import json
import logging
import secrets
import struct
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from services.simulator.engine.clock import SimulatedClock
from services.simulator.engine.life import LivingMarket
from services.simulator.faults.chaos import Chaos
from services.simulator.faults.fault import Path, Push
from services.simulator.faults.plan import FaultPlan
from services.simulator.okx.answers import INSTRUMENT_TYPES
from services.simulator.okx.limits import SlidingWindow
from services.simulator.okx.streams import INSTRUMENTS, PATHS, STATUS, Key, Streams
from services.simulator.stats import Stats

log = logging.getLogger(__name__)

CONNECTS_PER_SECOND = 3
"""New connections an address may make; one more is refused with HTTP 429."""
OPERATIONS_PER_HOUR = 480
"""Subscribe, unsubscribe and login requests of a connection; one more is refused with 60014."""
FRAME_LIMIT = 64 * 1024
"""A longer frame is answered by close 1009."""
IDLE_SECONDS = 30.0
"""Silence in both directions after which the exchange closes with 4004."""
IDLE_CLOSE = 4004
SLOW_CLOSE = 4005
SLOW_CONSUMER_BYTES = 32 * 1024 * 1024
"""Bytes a client may leave unread before it is closed with 4005."""
CLOSE_HANDSHAKE_SECONDS = 1.0

IDLE_TICK_SECONDS = 0.02
"""The longest the pump sleeps: how exactly in time live faults happen."""
SHORTEST_SLEEP_SECONDS = 0.004
"""What is due within this is sent in one go."""
BURST = 2_000
"""Pushes made before the loop gives others a turn."""

ID_LENGTH = 32

NOTICE = "The connection will soon be closed for a service upgrade. Please reconnect."


def text_frame(payload: bytes) -> bytes:
    """Frame a text message as a server does: final, unmasked."""
    size = len(payload)
    if size < 126:  # noqa: PLR2004 RFC 6455: the lengths of the three spellings
        return bytes((0x81, size)) + payload
    if size < 65_536:  # noqa: PLR2004
        return b"\x81\x7e" + struct.pack(">H", size) + payload
    return b"\x81\x7f" + struct.pack(">Q", size) + payload


@dataclass(eq=False, slots=True)
class Connection:
    """One client: frames wait in the outbox and leave together, encoded once for all clients."""

    path: Path
    socket: web.WebSocketResponse
    transport: asyncio.Transport
    conn_id: str = field(default_factory=lambda: secrets.token_hex(4))
    keys: set[Key] = field(default_factory=set)
    outbox: list[bytes] = field(default_factory=list)
    last_activity: float = field(default_factory=time.monotonic)
    operations: SlidingWindow = field(default_factory=lambda: SlidingWindow(OPERATIONS_PER_HOUR, 3600.0))
    deaf: set[Key] = field(default_factory=set)
    """Subscriptions that were acknowledged and get nothing until they are renewed."""
    late: deque[tuple[float, bytes]] = field(default_factory=deque)
    """What leaves later, with the instants on the wall clock."""
    close_at: float | None = None
    """When it is closed after a notice, on the wall clock."""
    spared: int = 0
    """Bytes that it may leave unread beyond the limit: those of a huge frame, which no client could have read yet."""
    closing: bool = False

    def flush(self, wall: float, lag: float = 0.0) -> None:
        """Hand the outbox to the transport as one write, some seconds late if need be but never out of order."""
        if self.outbox and (lag or self.late):
            soonest = self.late[-1][0] if self.late else wall
            self.late.append((max(soonest, wall + lag), b"".join(self.outbox)))
            self.outbox.clear()
        while self.late and self.late[0][0] <= wall:
            self.outbox.append(self.late.popleft()[1])
        if self.outbox and not self.closing and not self.transport.is_closing():
            self.transport.write(b"".join(self.outbox))
            self.last_activity = wall
        self.outbox.clear()


class Sockets:
    """All connections of the port."""

    def __init__(
        self,
        market: LivingMarket,
        clock: SimulatedClock,
        plan: FaultPlan,
        stats: Stats,
        chaos: Chaos | None = None,
    ) -> None:
        self._market = market
        self._clock = clock
        self._plan = plan
        self._stats = stats
        self._chaos = chaos
        self._streams = Streams(market, clock.speed, plan.windows, plan.shown)
        self._versions = (market.version, plan.version)
        self._connections: dict[str, Connection] = {}
        self._subscribers: dict[Key, dict[Connection, None]] = {}
        self._connects = SlidingWindow(CONNECTS_PER_SECOND, 1.0)
        self._closers: set[asyncio.Task[Any]] = set()

    def app(self) -> web.Application:
        """Build the application."""
        app = web.Application()
        app.router.add_get("/ws/v5/{path:public|business}", self._serve)
        app.on_shutdown.append(self._close_all)
        return app

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if not self._connects.allows(request.remote, time.monotonic()):
            self._stats.connections_refused += 1
            return web.Response(status=429, text="Too Many Requests")
        path: Path = "public" if request.match_info["path"] == "public" else "business"
        refusal = self._plan.refusal(path, self._clock.now_ms(), time.monotonic())
        if refusal:
            self._stats.connections_refused += 1
            if refusal == "tcp" and isinstance(request.transport, asyncio.Transport):
                request.transport.abort()
            return web.Response(status=503, text="Service Unavailable")
        socket = web.WebSocketResponse(
            timeout=CLOSE_HANDSHAKE_SECONDS, compress=False, max_msg_size=FRAME_LIMIT, autoping=True
        )
        await socket.prepare(request)
        transport = request.transport
        if not isinstance(transport, asyncio.Transport):
            return socket  # gone before the handshake was over
        connection = Connection(path, socket, transport)
        self._connections[connection.conn_id] = connection
        self._stats.connections_now[path] += 1
        self._stats.connections_total[path] += 1
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    self._receive(connection, message.data)
        finally:
            self._forget(connection)
        return socket

    def _forget(self, connection: Connection) -> None:
        connection.closing = True
        self._connections.pop(connection.conn_id, None)
        self._stats.connections_now[connection.path] -= 1
        for key in list(connection.keys):
            self._unsubscribe(connection, key)

    # Operations

    def _receive(self, connection: Connection, text: str) -> None:
        wall = time.monotonic()
        connection.last_activity = wall
        if text == "ping":
            connection.outbox.append(text_frame(b"pong"))
        else:
            self._operate(connection, text, wall)
        connection.flush(wall, self._lag(connection, wall))

    def _lag(self, connection: Connection, wall: float) -> float:
        return self._plan.lag(connection.conn_id, connection.path, self._clock.now_ms(), wall)

    def _operate(self, connection: Connection, text: str, wall: float) -> None:
        request = _parsed(text)
        if request is None:
            self._say(connection, None, event="error", code="60012", msg=f"Invalid request: {text}")
        elif not connection.operations.allows("operations", wall):
            self._say(connection, request, event="error", code="60014", msg="Requests too frequent")
        else:
            for arg in request["args"]:
                self._apply(connection, request, arg)

    def _apply(self, connection: Connection, request: dict[str, Any], arg: dict[str, Any]) -> None:
        key, now_ms = _key(arg), self._clock.now_ms()
        if request["op"] == "unsubscribe":
            self._unsubscribe(connection, key)
            self._say(connection, request, event="unsubscribe", arg=arg)
        elif not self._exists(connection.path, key, now_ms):
            self._deny(connection, request, key)
        else:
            self._subscribe_with_faults(connection, request, arg, now_ms)

    def _subscribe_with_faults(
        self, connection: Connection, request: dict[str, Any], arg: dict[str, Any], now_ms: int
    ) -> None:
        key = _key(arg)
        outcome = self._plan.subscription(connection.path, key.channel, key.inst_id, now_ms, time.monotonic())
        if outcome.answer == "error":
            self._deny(connection, request, key)
        elif outcome.answer == "ack":
            self._say(connection, request, event="subscribe", arg=arg)
        if outcome.data == "withheld":
            connection.deaf.add(key)
        if outcome.data != "none":
            self._subscribe(connection, key, now_ms)

    def _deny(self, connection: Connection, request: dict[str, Any], key: Key) -> None:
        problem = (
            f"Wrong URL or channel:{key.channel},instId:{key.inst_id} doesn't exist. Please use the correct URL, "
            "channel and parameters referring to API document."
        )
        self._say(connection, request, event="error", code="60018", msg=problem)

    def _exists(self, path: Path, key: Key, now_ms: int) -> bool:
        if key.channel in {INSTRUMENTS, STATUS}:
            return PATHS[key.channel] == path and (key.channel == STATUS or key.inst_id in INSTRUMENT_TYPES)
        instrument = self._market.instruments.get(key.inst_id)
        return PATHS.get(key.channel) == path and instrument is not None and instrument.is_served(now_ms)

    def _subscribe(self, connection: Connection, key: Key, now_ms: int) -> None:
        """Start the stream for its first subscriber; each one is sent the current state at once."""
        if key not in connection.keys:
            connection.keys.add(key)
            self._subscribers.setdefault(key, {})[connection] = None
            self._stats.subscriptions_now[key.channel] += 1
        self._streams.activate(key, now_ms)
        push = None if key in connection.deaf else self._streams.snapshot(key, now_ms)
        if push is None:
            return
        for delivery in self._plan.deliveries(push, now_ms, time.monotonic()):
            if delivery.delay_ms:
                self._streams.delay(key, push._replace(payload=delivery.payload), now_ms + delivery.delay_ms)
            else:
                connection.outbox.append(text_frame(delivery.payload))

    def _unsubscribe(self, connection: Connection, key: Key) -> None:
        connection.deaf.discard(key)
        if key not in connection.keys:
            return
        connection.keys.remove(key)
        self._stats.subscriptions_now[key.channel] -= 1
        subscribers = self._subscribers[key]
        del subscribers[connection]
        if not subscribers:
            del self._subscribers[key]
            self._streams.deactivate(key)

    def _say(self, connection: Connection, request: dict[str, Any] | None, **frame: Any) -> None:
        """Answer an operation, echoing its id."""
        if self._plan.is_mute(connection.path, self._clock.now_ms(), time.monotonic()):
            return
        if request and "id" in request:
            frame = {"id": request["id"], **frame}
        connection.outbox.append(text_frame(msgspec.json.encode(frame | {"connId": connection.conn_id})))

    # Pushes

    async def pump(self) -> None:
        """Send what is due, for ever."""
        next_watch = 0.0
        while True:
            now_ms, wall = self._clock.now_ms(), time.monotonic()
            self._disturb(now_ms, wall)
            self._cut(now_ms, wall)
            backlog = self._push_due(now_ms, wall)
            for connection in self._connections.values():
                connection.flush(wall, self._lag(connection, wall))
            if wall >= next_watch:
                next_watch = wall + 0.5
                self._close_idle_and_slow(wall)
            await asyncio.sleep(0 if backlog else self._pause(now_ms))

    def _disturb(self, now_ms: int, wall: float) -> None:
        """Arm what chaos has in mind, correct what is to be corrected, and see what that changes."""
        for fault in self._chaos.due(now_ms) if self._chaos else ():
            self._plan.add(fault, now_ms, by_chaos=True)
        self._plan.corrections(self._market.correct, now_ms, wall)
        versions = (self._market.version, self._plan.version)
        if versions != self._versions:
            self._versions = versions
            self._streams.renew_news()

    def _pause(self, now_ms: int) -> float:
        due_ms = self._streams.next_due_ms()
        if due_ms is None:
            return IDLE_TICK_SECONDS
        wait = (due_ms - now_ms) / 1000 / self._clock.speed
        return min(IDLE_TICK_SECONDS, max(SHORTEST_SLEEP_SECONDS, wait))

    def _push_due(self, now_ms: int, wall: float) -> bool:
        """Queue what is due; True if more is left than one turn allows."""
        for _ in range(BURST):
            found = self._streams.due(now_ms)
            if found is None:
                return False
            push, was_delayed = found
            self._stats.pushes[push.kind] += not was_delayed
            if was_delayed:
                self._queue(push, push.payload)
            else:
                self._queue_with_faults(push, now_ms, wall)
        return True

    def _queue_with_faults(self, push: Push, now_ms: int, wall: float) -> None:
        for delivery in self._plan.deliveries(push, now_ms, wall):
            if delivery.delay_ms:
                late = push._replace(payload=delivery.payload)
                self._streams.delay(Key(push.channel, push.inst_id), late, now_ms + delivery.delay_ms)
            else:
                self._queue(push, delivery.payload)

    def _queue(self, push: Push, payload: bytes) -> None:
        frame = text_frame(payload)
        key = Key(push.channel, push.inst_id)
        for connection in self._subscribers.get(key, {}):
            if key not in connection.deaf:
                self._stats.rows_sent[push.kind] += 1
                connection.outbox.append(frame)
                connection.spared += len(frame) if len(frame) > SLOW_CONSUMER_BYTES else 0

    # Ends

    def _cut(self, now_ms: int, wall: float) -> None:
        open_now = [(connection.conn_id, connection.path) for connection in self._connections.values()]
        for conn_id, how, seconds in self._plan.cuts(open_now, now_ms, wall):
            connection = self._connections[conn_id]
            if how == "notice":
                connection.close_at = wall + seconds
                self._say(connection, None, event="notice", code="64008", msg=NOTICE)
                continue
            self._stats.closes[how] += 1
            if how == "drop":
                connection.closing = True
                connection.transport.abort()
            else:
                self._close(connection, WSCloseCode.OK, b"")
        for connection in list(self._connections.values()):
            if connection.close_at is not None and connection.close_at <= wall and not connection.closing:
                self._stats.closes["notice"] += 1
                self._close(connection, WSCloseCode.OK, b"")

    def _close_idle_and_slow(self, wall: float) -> None:
        for connection in list(self._connections.values()):
            if connection.closing or connection.transport.is_closing():  # lost, and not taken out of the list yet
                continue
            if wall - connection.last_activity > IDLE_SECONDS:
                self._stats.closes["idle"] += 1
                self._close(connection, IDLE_CLOSE, b"No data received in 30s.")
            elif (unread := connection.transport.get_write_buffer_size()) <= SLOW_CONSUMER_BYTES:
                connection.spared = 0
            elif unread > SLOW_CONSUMER_BYTES + connection.spared:
                self._stats.closes["slow"] += 1
                self._close(connection, SLOW_CLOSE, b"Buffer is full.")
                connection.transport.abort()

    def _close(self, connection: Connection, code: int, reason: bytes) -> None:
        if connection.closing:
            return
        connection.flush(time.monotonic())
        connection.closing = True
        closer = asyncio.ensure_future(connection.socket.close(code=code, message=reason))
        self._closers.add(closer)
        closer.add_done_callback(self._closers.discard)

    async def _close_all(self, _app: web.Application) -> None:
        for connection in list(self._connections.values()):
            self._close(connection, WSCloseCode.GOING_AWAY, b"")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*self._closers, return_exceptions=True), 2.0)


def _key(arg: dict[str, Any]) -> Key:
    """Return what an argument subscribes to."""
    channel = str(arg.get("channel", ""))
    named_by = {INSTRUMENTS: "instType", STATUS: ""}.get(channel, "instId")
    return Key(channel, str(arg.get(named_by, "")))


def _parsed(text: str) -> dict[str, Any] | None:
    """Return a well-formed operation, None for anything else (60012)."""
    try:
        request = json.loads(text)
    except ValueError:
        return None
    if not isinstance(request, dict) or request.get("op") not in {"subscribe", "unsubscribe"}:
        return None
    return request if _is_id(request.get("id", "0")) and _are_args(request.get("args")) else None


def _is_id(value: object) -> bool:
    return isinstance(value, str) and value.isalnum() and len(value) <= ID_LENGTH


def _are_args(value: object) -> bool:
    return isinstance(value, Sequence) and bool(value) and all(isinstance(arg, dict) for arg in value)
