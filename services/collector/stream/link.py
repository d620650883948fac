"""What is asked on one connection, and what becomes of it: requests for the difference, renewals, observations.

A change of the set is requests on the open connection; instruments that stay are not touched. A subscription that is
rejected, not acknowledged or silent is renewed on its own (`liveness.py` decides). A link never ends its connection for
the sake of single instruments: it asks for the next one, which takes over first (`reconnection.py`).
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

import structlog

from services.collector.metrics import REJECTED, RENEWALS, REPLACED
from services.collector.stream.connection import (
    Connection,
    Notice,
    Observation,
    Opened,
    Rejected,
    Row,
    Stream,
    Subscribed,
    TooManyRequests,
    Unreadable,
    WillClose,
)
from services.collector.stream.liveness import Budget, Liveness, Reason, Spell
from shared.backoff import backoff_seconds
from shared.symbol import Symbol

log = structlog.get_logger()

OnRow = Callable[[Row], None]
"""Must only append, since it runs inside the connection's reader."""
OnUnreadable = Callable[[str, object, str], None]
"""(where, payload, reason)."""

_TICK_SECONDS = 1.0
_HOUR = 3600.0
_HOLD_CAP_SECONDS = 300.0
"""The longest wait after a request that was refused as one too many."""
_REFUSALS_BEFORE_NEW_CONNECTION = 3
_NAMED = 5


@dataclass(eq=False, kw_only=True)
class Feed:
    """What all connections of a channel share: the stream, where its rows go, and what came so far."""

    stream: Stream
    on_row: OnRow
    on_unreadable: OnUnreadable
    is_expected_silent: Callable[[Symbol], bool]
    """Whether nothing is to be expected of an instrument, such as a suspended one: it is shown, but not renewed."""
    hold_seconds: float
    """The first wait after a request that was refused as one too many."""
    last_row: float | None = None
    """When the newest row that was a sign of life came, in monotonic seconds."""
    opened: int = 0
    """Connections opened since the start."""

    @property
    def name(self) -> str:
        """Return the channel's name."""
        return self.stream.name


@dataclass(eq=False)
class Assignment:
    """The instruments of one shard, and what is known of them whatever connection they are on."""

    number: int
    """Of the shard."""
    symbols: set[Symbol] = field(default_factory=set)
    spells: dict[Symbol, Spell] = field(default_factory=dict)
    fruitless: int = 0
    """Connections in a row that brought no row."""


@dataclass(eq=False)
class Link:
    """One connection, what was asked on it and what was answered. It listens to its connection."""

    feed: Feed
    assignment: Assignment
    connection: Connection = field(init=False)
    liveness: Liveness = field(init=False)
    outdated: asyncio.Event = field(default_factory=asyncio.Event)
    """Set where the next connection shall take over."""
    subscribed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once every request was answered, or had its time."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set where there is something to send before the next tick."""
    began: float = field(default_factory=time.monotonic)
    _budget: Budget = field(init=False)
    _hold_until: float = 0.0
    _refusals: int = 0
    _renewed: float | None = None

    def __post_init__(self) -> None:
        stream = self.feed.stream
        self.connection = stream.connect(self.observe)
        self.liveness = Liveness(stream.patience, self.assignment.spells)
        self._budget = Budget(stream.requests_per_hour, _HOUR)

    async def run(self) -> str:
        """Open the connection, keep its subscriptions alive, and return why it ended."""
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(self._keep())
            reason = await self.connection.run()
            keeper.cancel()
        return reason

    async def _keep(self) -> None:
        """Send what changed and check the subscriptions, at every change and at least every second."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self.changed.wait()
            self.changed.clear()
            if not self.connection.is_open:
                continue
            await self._send_changes()
            now = time.monotonic()
            self.liveness.scan(now)
            if not self.outdated.is_set():
                await self._help(now)
            self._judge(now)

    async def _send_changes(self) -> None:
        """Bring the connection to the wanted set: requests for the difference only."""
        wanted, asked, most = self.assignment.symbols, self.liveness.asked_for, self.feed.stream.most_symbols
        for request in self.liveness.requests(wanted - asked, most):
            if not self._may_send():
                return
            self.liveness.ask(request, time.monotonic())
            await self.connection.send("subscribe", request)
        for request in self.liveness.requests(asked - wanted, most):
            if not self._may_send():
                return
            self.liveness.forget(request)
            await self.connection.send("unsubscribe", request)

    def _may_send(self) -> bool:
        """Take a request from the budget; where none is left, the next connection takes over with its own."""
        now = time.monotonic()
        if now < self._hold_until:
            return False
        if self._budget.take(now):
            return True
        self.replace("the hour's operations are used up")
        return False

    async def _help(self, now: float) -> None:
        """Renew the subscriptions that need it, or ask for a new connection where that did not help."""
        feed, patience = self.feed, self.feed.stream.patience
        to_move = self.liveness.to_move(now, feed.is_expected_silent)
        if to_move and now - self.began >= patience.new_connection_seconds:
            self.liveness.moved(now)
            self.replace(f"renewing did not help {named(to_move)}")
            return
        if self._renewed is not None and now - self._renewed < patience.batch_seconds:
            return
        if due := self.liveness.due(now, feed.is_expected_silent, feed.stream.most_symbols):
            self._renewed = now
            await self._renew(due)

    async def _renew(self, due: Mapping[Symbol, Reason]) -> None:
        """Subscribe again; what was rejected is not subscribed, so it needs no unsubscription before."""
        name = self.feed.name
        before = sorted(symbol for symbol, reason in due.items() if reason is not Reason.REJECTED)
        if before:
            if not self._may_send():
                return
            await self.connection.send("unsubscribe", before)
        if not self._may_send():
            return
        self.liveness.renewed(due, time.monotonic())
        for reason in due.values():
            RENEWALS.labels(name, reason).inc()
        log.warning("subscribing again", channel=name, shard=self.assignment.number, instruments=dict(due))
        await self.connection.send("subscribe", sorted(due))

    def _judge(self, now: float) -> None:
        """End a connection that is dead as a whole; note when it is subscribed as a whole."""
        dead = self.liveness.dead(now, self.assignment.fruitless, self.feed.is_expected_silent)
        if dead is not None:
            self.connection.end(dead)
        if self.assignment.symbols <= self.liveness.asked_for and self.liveness.settled(now):
            self.subscribed.set()

    def replace(self, why: str) -> None:
        """Ask for the next connection, which takes over before this one ends."""
        if not self.outdated.is_set():
            REPLACED.labels(self.feed.name).inc()
            log.warning("replacing connection", channel=self.feed.name, reason=why)
            self.outdated.set()

    def observe(self, observation: Observation) -> None:
        """Take what the connection reports. It runs inside its reader, so it only notes."""
        match observation:
            case Row():
                self._on_row(observation)
            case Opened():
                self._on_open()
            case Subscribed(symbols):
                now = time.monotonic()
                for symbol in symbols:
                    self.liveness.acknowledge(symbol, now)
            case Rejected():
                self._on_rejection(observation)
            case TooManyRequests():
                self._on_refusal(observation)
            case WillClose(text):
                self.replace(f"announced by the exchange: {text}")
            case Unreadable(payload, reason):
                self.feed.on_unreadable(self.feed.name, payload, reason)
            case Notice(text):
                log.warning("notice", channel=self.feed.name, notice=text)
            case _:
                assert_never(observation)

    def _on_row(self, row: Row) -> None:
        self.feed.on_row(row)
        if row.is_sign_of_life:
            now = self.feed.last_row = time.monotonic()
            self.assignment.fruitless = 0
            self.liveness.row(row.symbol, now)

    def _on_open(self) -> None:
        """Let everything that is wanted now be subscribed."""
        self.began = time.monotonic()
        self.feed.opened += 1
        number, instruments = self.assignment.number, len(self.assignment.symbols)
        log.info("connected", channel=self.feed.name, shard=number, instruments=instruments)
        self.changed.set()

    def _on_rejection(self, rejected: Rejected) -> None:
        name, code = self.feed.name, rejected.code
        REJECTED.labels(name, code).inc()
        concerned = self.liveness.reject(rejected.symbols, code, time.monotonic(), together=rejected.together)
        log.warning("rejected", channel=name, code=code, text=rejected.text, instruments=concerned)

    def _on_refusal(self, refusal: TooManyRequests) -> None:
        """Hold back, then ask again: the request was refused as a whole."""
        name = self.feed.name
        REJECTED.labels(name, refusal.code).inc()
        wait = backoff_seconds(self._refusals, first=self.feed.hold_seconds, cap=_HOLD_CAP_SECONDS)
        self._hold_until = time.monotonic() + wait
        self._refusals += 1
        unanswered = self.liveness.forget_unanswered()
        log.warning("too many requests", channel=name, again_in_seconds=round(wait, 1), instruments=len(unanswered))
        if self._refusals >= _REFUSALS_BEFORE_NEW_CONNECTION:
            self.replace("the exchange takes no more requests on this one")


def named(symbols: Sequence[Symbol]) -> str:
    """Name some, count the rest."""
    rest = len(symbols) - _NAMED
    return ", ".join(symbols[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
