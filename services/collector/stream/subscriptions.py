"""A channel's live subscriptions, over as many connections as they need, and how they are.

Each connection keeps its own subscriptions (`link.py`) and is replaced by itself (`reconnection.py`); here the wanted
set is spread over them (`shards.py`). REST covers the minutes that are missed meanwhile; nothing here waits for it.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from services.collector.metrics import CONNECTIONS_NOW, REJECTED_NOW, SILENT_NOW, SUBSCRIBED
from services.collector.stream.connection import Stream
from services.collector.stream.link import Feed, OnRow, OnUnreadable, named
from services.collector.stream.liveness import Reason, Spell
from services.collector.stream.reconnection import Shard
from services.collector.stream.shards import assign
from shared.symbol import Symbol

_COUNT_SECONDS = 1.0
"""How often the gauges are set."""


@dataclass(kw_only=True)
class LiveChannel:
    """One channel of an exchange, subscribed for `wanted`, which returns what is followed at any time."""

    stream: Stream
    wanted: Callable[[], Collection[Symbol]]
    on_row: OnRow
    on_unreadable: OnUnreadable
    symbols_per_connection: int
    is_expected_silent: Callable[[Symbol], bool] = lambda _: False
    """Whether nothing is to be expected of an instrument, such as a suspended one: it is shown, but not renewed."""
    hold_seconds: float = 30.0
    """The first wait after the exchange refused a request as one too many."""
    feed: Feed = field(init=False)
    shards: dict[int, Shard] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.feed = Feed(
            stream=self.stream,
            on_row=self.on_row,
            on_unreadable=self.on_unreadable,
            is_expected_silent=self.is_expected_silent,
            hold_seconds=self.hold_seconds,
        )

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
                    async with asyncio.timeout(_COUNT_SECONDS):
                        await self._changed.wait()

    def reconcile(self) -> None:
        """Bring the shards to the wanted set. Never waits: each connection sends its requests by itself."""
        current = {symbol: shard.number for shard in self.shards.values() for symbol in shard.symbols}
        assigned = assign(current, set(self.wanted()), self.symbols_per_connection)
        carried: dict[int, set[Symbol]] = {}
        for symbol, number in assigned.items():
            carried.setdefault(number, set()).add(symbol)
        for number in self.shards.keys() - carried.keys():
            del self.shards[number]
        for number, symbols in carried.items():
            self.shards.setdefault(number, Shard(self.feed, number)).carry(symbols)
        self._changed.set()

    def data_age(self) -> float | None:
        """Return the seconds since the newest row, None where there was none yet."""
        return None if self.feed.last_row is None else time.monotonic() - self.feed.last_row

    def details(self) -> dict[str, Any]:
        """Return what the service reports of the channel in its heartbeat."""
        age = self.data_age()
        return {
            "connections": self.feed.opened,
            "connected": sum(
                shard.link is not None and shard.link.connection.is_open for shard in self.shards.values()
            ),
            "shards": len(self.shards),
            "wanted": sum(len(shard.symbols) for shard in self.shards.values()),
            "subscribed": self._subscribed(),
            "rejected": {
                symbol: spell.code or ""
                for symbol, spell in self._troubles().items()
                if spell.reason is Reason.REJECTED
            },
            "unacknowledged": self._in_trouble(Reason.UNACKNOWLEDGED),
            "silent": self._in_trouble(Reason.SILENT),
            "expected_silent": sorted(symbol for symbol in self._open_spells() if self.is_expected_silent(symbol)),
            "data_age_seconds": None if age is None else round(age, 1),
        }

    def problem(self) -> str | None:
        """Return what is wrong and what is done about it, in a sentence; None where all is well."""
        found, details = [], self.details()
        lost = details["shards"] - details["connected"]
        through = f" through {proxy}" if (proxy := self.stream.proxy) is not None else ""
        if lost and details["shards"] == 1:
            found.append(f"not connected to the exchange{through}, connecting again")
        elif lost:
            found.append(
                f"{lost} of {details['shards']} connections to the exchange{through} are down, connecting again"
            )
        if rejected := details["rejected"]:
            found.append(f"the exchange rejects {named(sorted(rejected))}, asking again")
        if silent := sorted([*details["silent"], *details["unacknowledged"]]):
            found.append(f"no live data of {named(silent)}, subscribing again")
        return f"{self.stream.name}: {'; '.join(found)}; {self.stream.covered}" if found else None

    def _open_spells(self) -> dict[Symbol, Spell]:
        return {
            symbol: spell
            for shard in self.shards.values()
            for symbol, spell in sorted(shard.assignment.spells.items())
            if spell.open()
        }

    def _troubles(self) -> dict[Symbol, Spell]:
        return {symbol: spell for symbol, spell in self._open_spells().items() if not self.is_expected_silent(symbol)}

    def _in_trouble(self, reason: Reason) -> list[Symbol]:
        return sorted(symbol for symbol, spell in self._troubles().items() if spell.reason is reason)

    def _subscribed(self) -> int:
        links = [shard.link for shard in self.shards.values()]
        return sum(link.liveness.answered() for link in links if link is not None and link.connection.is_open)

    def _count(self) -> None:
        name, details = self.stream.name, self.details()
        CONNECTIONS_NOW.labels(name).set(details["connected"])
        SUBSCRIBED.labels(name).set(details["subscribed"])
        REJECTED_NOW.labels(name).set(len(details["rejected"]))
        SILENT_NOW.labels(name).set(len(details["silent"]) + len(details["unacknowledged"]))
