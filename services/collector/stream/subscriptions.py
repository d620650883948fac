"""A channel's live subscriptions, kept alive for ever, over as many connections as they need.

- One shard is one connection at a time, run to its end and opened again, with a capped and jittered wait. The loss of
  one does not touch the others.
- A change of the set is frames on the live connections; those who stay are not touched.
- A subscription that is rejected, not acknowledged or silent is renewed on its own, then by a new connection
  (`liveness.py` decides). REST covers the minutes meanwhile; nothing here waits for it.
- A connection is replaced by opening the next one first: it subscribes, the rows of both are taken (the intake drops
  copies), then the old one ends. So no row is missed where the exchange announces an upgrade, where the hour's
  operations are used up, or where single instruments need a new connection.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import batched
from typing import Any

import structlog

from services.collector.metrics import (
    CONNECTIONS_NOW,
    REJECTED,
    REJECTED_NOW,
    RENEWALS,
    REPLACED,
    SILENT_NOW,
    SUBSCRIBED,
)
from services.collector.stream.liveness import Budget, Liveness, Reason, Spell
from services.collector.stream.okx import ARGS_PER_FRAME, OPERATIONS_PER_HOUR, Channel, Connection, Endpoint
from services.collector.stream.shards import assign
from shared.backoff import backoff_seconds

log = structlog.get_logger()

OnRow = Callable[[str, Any], bool]
"""(instId, raw row) → whether it made sense; must only append, since it runs inside cryptofeed's reader."""
OnBad = Callable[[str, str, str], None]
"""(origin, payload, error)."""

_TICK_SECONDS = 1.0
_STABLE_SECONDS = 10.0
"""A connection that brought rows for this long was a good one: the next is opened at once."""
_OVERLAP_SECONDS = 1.0
"""How long the old connection is read on once the next one is subscribed: what it was sent before is on its way."""
_RECONNECT_SECONDS = 5.0
"""The longest wait between two connections: a feed that is back is not left alone, and all of them share a limit."""
_TOO_MANY_REQUESTS = "60014"
_UPGRADE = "64008"
_REFUSALS_BEFORE_NEW_CONNECTION = 3
_NAMED = 5


@dataclass(eq=False)
class _Link:
    """One connection of a shard, what was asked on it and what was answered. It listens to its connection."""

    shard: "Shard"
    connection: Connection = field(init=False)
    liveness: Liveness = field(init=False)
    outdated: asyncio.Event = field(default_factory=asyncio.Event)
    """Set where the next connection shall take over."""
    subscribed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once everything that was asked has an answer, or had its time."""
    poked: asyncio.Event = field(default_factory=asyncio.Event)
    began: float = field(default_factory=time.monotonic)
    _budget: Budget = field(default_factory=lambda: Budget(OPERATIONS_PER_HOUR, 3600.0))
    _hold_until: float = 0.0
    _refusals: int = 0
    _renewed: float | None = None

    def __post_init__(self) -> None:
        live = self.shard.live
        self.connection = Connection(live.channel, live.endpoint, self)
        self.liveness = Liveness(live.channel.limits, self.shard.spells)

    async def run(self) -> str:
        """Open the connection, keep its subscriptions alive, and return why it ended."""
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(self._keep())
            reason = await self.connection.run()
            keeper.cancel()
        return reason

    async def _keep(self) -> None:
        """Tell the set and look after the subscriptions, at every change and at least every second."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self.poked.wait()
            self.poked.clear()
            if not self.connection.is_open:
                continue
            await self._tell_set()
            now = time.monotonic()
            self.liveness.look(now)
            if not self.outdated.is_set():
                await self._help(now)
            self._judge(now)

    async def _tell_set(self) -> None:
        """Bring the connection to the wanted set: frames for the difference only."""
        wanted, asked = self.shard.instruments, self.liveness.asked_for
        for frame in _frames(wanted - asked):
            if not self._may_send():
                return
            self.liveness.ask(frame, time.monotonic())
            await self.connection.send("subscribe", frame)
        for frame in _frames(asked - wanted):
            if not self._may_send():
                return
            self.liveness.let_go(frame)
            await self.connection.send("unsubscribe", frame)

    def _may_send(self) -> bool:
        """Take an operation from the budget; where none is left, the next connection takes over with its own."""
        now = time.monotonic()
        if now < self._hold_until:
            return False
        if self._budget.take(now):
            return True
        self.replace("the hour's operations are used up")
        return False

    async def _help(self, now: float) -> None:
        """Renew the subscriptions that need it, or ask for a new connection where that did not help."""
        live, limits = self.shard.live, self.shard.live.channel.limits
        to_move = self.liveness.to_move(now, live.is_expected_silent)
        if to_move and now - self.began >= limits.new_connection_seconds:
            self.liveness.moved(now)
            self.replace(f"renewing did not help {_named(to_move)}")
            return
        if self._renewed is not None and now - self._renewed < limits.batch_seconds:
            return
        if due := self.liveness.due(now, live.is_expected_silent, ARGS_PER_FRAME):
            self._renewed = now
            await self._renew(due)

    async def _renew(self, due: Mapping[str, Reason]) -> None:
        """Subscribe anew; what was rejected is not subscribed, so it needs no unsubscribe before."""
        name = self.shard.live.channel.name
        before = sorted(inst_id for inst_id, reason in due.items() if reason is not Reason.REJECTED)
        if before:
            if not self._may_send():
                return
            await self.connection.send("unsubscribe", before)
        if not self._may_send():
            return
        self.liveness.renewed(due, time.monotonic())
        for reason in due.values():
            RENEWALS.labels(name, reason).inc()
        log.warning("subscribing anew", channel=name, shard=self.shard.number, instruments=dict(due))
        await self.connection.send("subscribe", sorted(due))

    def _judge(self, now: float) -> None:
        """End a connection that is dead as a whole; note when it is subscribed as a whole."""
        dead = self.liveness.dead(now, self.shard.fruitless, self.shard.live.is_expected_silent)
        if dead is not None:
            self.connection.end(dead)
        if self.shard.instruments <= self.liveness.asked_for and self.liveness.settled(now):
            self.subscribed.set()

    def replace(self, why: str) -> None:
        """Ask for the next connection, which takes over before this one ends."""
        if not self.outdated.is_set():
            REPLACED.labels(self.shard.live.channel.name).inc()
            log.warning("replacing connection", channel=self.shard.live.channel.name, reason=why)
            self.outdated.set()

    # What the connection tells.

    def on_open(self) -> None:
        """Subscribe everything that is wanted now."""
        self.began = time.monotonic()
        self.shard.live.opened += 1
        log.info(
            "connected",
            channel=self.shard.live.channel.name,
            shard=self.shard.number,
            instruments=len(self.shard.instruments),
        )
        self.poked.set()

    def on_row(self, inst_id: str, row: Any) -> None:
        """Hand it on, and note whose it is; a row that makes no sense is no sign of life."""
        if self.shard.live.on_row(inst_id, row):
            now = self.shard.live.last_data = time.monotonic()
            self.shard.fruitless = 0
            self.liveness.row(inst_id, now)

    def on_control(self, message: dict[str, Any]) -> None:
        """Match acks and rejections with what was asked; follow notices."""
        event, code = message.get("event"), str(message.get("code"))
        if event == "subscribe":
            self.liveness.acknowledge(str((message.get("arg") or {}).get("instId", "")), time.monotonic())
        elif event == "error":
            self._on_error(code, str(message.get("msg")))
        elif event == "notice" and code == _UPGRADE:
            self.replace(f"announced by the exchange: {message.get('msg')}")
        elif event != "unsubscribe":
            log.warning("notice", channel=self.shard.live.channel.name, notice=message)

    def _on_error(self, code: str, text: str) -> None:
        name, now = self.shard.live.channel.name, time.monotonic()
        REJECTED.labels(name, code).inc()
        if code != _TOO_MANY_REQUESTS:
            log.warning(
                "rejected", channel=name, code=code, text=text, instruments=self.liveness.reject(code, text, now)
            )
            return
        # The request was refused as a whole: it is sent again, later.
        wait = backoff_seconds(self._refusals, first=self.shard.live.hold_seconds, cap=300.0)
        self._hold_until = now + wait
        self._refusals += 1
        unanswered = self.liveness.forget_unanswered()
        log.warning("too many requests", channel=name, again_in_seconds=round(wait, 1), instruments=len(unanswered))
        if self._refusals >= _REFUSALS_BEFORE_NEW_CONNECTION:
            self.replace("the exchange takes no more requests on this one")

    def on_bad_frame(self, frame: str, error: Exception) -> None:
        """Set a frame aside that made no sense."""
        live = self.shard.live
        live.on_bad(f"collector:{live.channel.name}", frame[:4000], f"{type(error).__name__}: {error}")


@dataclass(eq=False)
class Shard:
    """Some instruments of a channel, on one connection at a time."""

    live: "LiveChannel"
    number: int
    instruments: set[str] = field(default_factory=set)
    spells: dict[str, Spell] = field(default_factory=dict)
    link: _Link | None = None
    fruitless: int = 0
    """Connections in a row that brought no row."""
    _attempt: int = 0

    def take(self, instruments: set[str]) -> None:
        """Carry these from now on."""
        self.instruments = instruments
        for inst_id in self.spells.keys() - instruments:
            del self.spells[inst_id]
        if self.link is not None:
            self.link.poked.set()

    async def run(self) -> None:
        """Connect, read, and connect again, until cancelled."""
        async with asyncio.TaskGroup() as group:
            link, task = self._open(group)
            while True:
                self.link = link
                successor = await self._until_over(group, link, task)
                if successor is None:
                    self._note_end(link, task.result())
                    await asyncio.sleep(self._wait(link))
                    successor = self._open(group)
                link, task = successor

    def _open(self, group: asyncio.TaskGroup) -> tuple[_Link, "asyncio.Task[str]"]:
        link = _Link(self)
        return link, group.create_task(link.run())

    async def _until_over(
        self, group: asyncio.TaskGroup, link: _Link, task: "asyncio.Task[str]"
    ) -> tuple[_Link, "asyncio.Task[str]"] | None:
        """Wait for the end of a connection; return the next one where that has taken over."""
        await _first(task, link.outdated)
        if not task.done():
            await asyncio.wait({task}, timeout=self._wait(link))
        while not task.done():
            successor, its_task = self._open(group)
            await _first(task, its_task, successor.subscribed)
            if not its_task.done():
                self.link = successor
                if not task.done():
                    await asyncio.wait({task}, timeout=_OVERLAP_SECONDS)
                link.connection.end("replaced by the next one")
                await task
                self._note_end(link, task.result())
                return successor, its_task
            self._note_end(successor, its_task.result())
            await asyncio.wait({task}, timeout=self._wait(successor))
        return None

    def _note_end(self, link: _Link, reason: str) -> None:
        self.fruitless += link.liveness.last_row is None and link.liveness.asked_for != set()
        log.warning("disconnected", channel=self.live.channel.name, shard=self.number, reason=reason)

    def _wait(self, link: _Link) -> float:
        """Return how long to wait before the next connection."""
        good = link.liveness.last_row is not None and time.monotonic() - link.began > _STABLE_SECONDS
        self._attempt = 0 if good else self._attempt + 1
        return backoff_seconds(self._attempt, first=0.1, cap=_RECONNECT_SECONDS)


@dataclass
class LiveChannel:
    """One channel of the exchange. `wanted` tells the instIds at any time."""

    channel: Channel
    endpoint: Endpoint
    wanted: Callable[[], Sequence[str]]
    on_row: OnRow
    on_bad: OnBad
    args_per_connection: int
    is_expected_silent: Callable[[str], bool] = lambda _: False
    """Whether nothing is to be expected of an instrument, such as a suspended one: it is shown, but not renewed."""
    hold_seconds: float = 30.0
    """The first wait after the exchange refused a request as one too many."""
    last_data: float | None = None
    """Monotonic seconds."""
    opened: int = 0
    """Connections opened since the start."""
    shards: dict[int, Shard] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Keep every shard's connection alive, until cancelled."""
        self.reconcile()
        async with asyncio.TaskGroup() as group:
            tasks: dict[Shard, asyncio.Task[None]] = {}
            while True:
                self._changed.clear()
                shards = set(self.shards.values())
                for shard in tasks.keys() - shards:
                    tasks.pop(shard).cancel()
                for shard in shards - tasks.keys():
                    tasks[shard] = group.create_task(shard.run())
                self._count()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_TICK_SECONDS):
                        await self._changed.wait()

    def reconcile(self) -> None:
        """Bring the shards to the wanted set. Never waits: each connection sends its frames by itself."""
        current = {inst_id: shard.number for shard in self.shards.values() for inst_id in shard.instruments}
        assigned = assign(current, set(self.wanted()), self.args_per_connection)
        carried: dict[int, set[str]] = {}
        for inst_id, number in assigned.items():
            carried.setdefault(number, set()).add(inst_id)
        for number in self.shards.keys() - carried.keys():
            del self.shards[number]
        for number, instruments in carried.items():
            self.shards.setdefault(number, Shard(self, number)).take(instruments)
        self._changed.set()

    def data_age(self) -> float | None:
        """Return the seconds since the newest row, None where there was none yet."""
        return None if self.last_data is None else time.monotonic() - self.last_data

    def details(self) -> dict[str, Any]:
        """Return what the service tells about the channel in its heartbeat."""
        age = self.data_age()
        return {
            "connections": self.opened,
            "connected": sum(
                shard.link is not None and shard.link.connection.is_open for shard in self.shards.values()
            ),
            "shards": len(self.shards),
            "wanted": sum(len(shard.instruments) for shard in self.shards.values()),
            "subscribed": self._subscribed(),
            "rejected": {
                inst_id: spell.code or ""
                for inst_id, spell in self._troubles().items()
                if spell.reason is Reason.REJECTED
            },
            "unacknowledged": self._in_trouble(Reason.UNACKNOWLEDGED),
            "silent": self._in_trouble(Reason.SILENT),
            "expected_silent": sorted(inst_id for inst_id in self._open_spells() if self.is_expected_silent(inst_id)),
            "data_age_seconds": None if age is None else round(age, 1),
        }

    def problem(self) -> str | None:
        """Return what is wrong and what is done about it, in a sentence; None where all is well."""
        name, found = self.channel.name, []
        details = self.details()
        lost = details["shards"] - details["connected"]
        through = f" through {proxy}" if (proxy := self.endpoint.proxy) is not None else ""
        if lost and details["shards"] == 1:
            found.append(f"not connected to the exchange{through}, connecting again")
        elif lost:
            found.append(
                f"{lost} of {details['shards']} connections to the exchange{through} are down, connecting again"
            )
        if rejected := details["rejected"]:
            found.append(f"the exchange rejects {_named(sorted(rejected))}, asking again")
        if silent := sorted([*details["silent"], *details["unacknowledged"]]):
            found.append(f"no live data of {_named(silent)}, subscribing anew")
        return f"{name}: {'; '.join(found)}; {self.channel.covered}" if found else None

    def _open_spells(self) -> dict[str, Spell]:
        return {
            inst_id: spell
            for shard in self.shards.values()
            for inst_id, spell in sorted(shard.spells.items())
            if spell.open()
        }

    def _troubles(self) -> dict[str, Spell]:
        return {
            inst_id: spell for inst_id, spell in self._open_spells().items() if not self.is_expected_silent(inst_id)
        }

    def _in_trouble(self, reason: Reason) -> list[str]:
        return sorted(inst_id for inst_id, spell in self._troubles().items() if spell.reason is reason)

    def _subscribed(self) -> int:
        links = [shard.link for shard in self.shards.values()]
        return sum(link.liveness.answered() for link in links if link is not None and link.connection.is_open)

    def _count(self) -> None:
        name, details = self.channel.name, self.details()
        CONNECTIONS_NOW.labels(name).set(details["connected"])
        SUBSCRIBED.labels(name).set(details["subscribed"])
        REJECTED_NOW.labels(name).set(len(details["rejected"]))
        SILENT_NOW.labels(name).set(len(details["silent"]) + len(details["unacknowledged"]))


async def _first(*awaited: "asyncio.Task[Any] | asyncio.Event") -> None:
    """Wait until one of the tasks is done or one of the events is set."""
    waiters = {asyncio.ensure_future(one.wait()) if isinstance(one, asyncio.Event) else one for one in awaited}
    own = waiters - set(awaited)
    try:
        await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in own:
            waiter.cancel()


def _frames(inst_ids: Iterable[str]) -> Iterable[tuple[str, ...]]:
    return batched(sorted(inst_ids), ARGS_PER_FRAME, strict=False)


def _named(inst_ids: Sequence[str]) -> str:
    """Name some, count the rest."""
    rest = len(inst_ids) - _NAMED
    return ", ".join(inst_ids[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
