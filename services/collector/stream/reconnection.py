"""A shard's connections, one after the other, for ever.

One shard is one connection at a time, run to its end and opened again, with a capped and jittered wait. The loss of one
does not touch the others.

A connection is replaced by opening the next one first: it subscribes, the rows of both are taken (the intake drops
copies), then the old one ends. So no row is missed where the exchange announces that it will close the connection,
where the hour's requests are used up, or where single instruments need a new connection.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import structlog

from services.collector.stream.link import Assignment, Feed, Link
from shared.backoff import backoff_seconds
from shared.symbol import Symbol

log = structlog.get_logger()

_STABLE_SECONDS = 10.0
"""A connection that brought rows for this long was a good one: the next is opened at once."""
_OVERLAP_SECONDS = 1.0
"""How long the old connection is read on once the next one is subscribed: what it was sent before is on its way."""
_RECONNECT_SECONDS = 5.0
"""The longest wait between two connections: a feed that is back is not left alone, and all of them share a limit."""


@dataclass(eq=False)
class Shard:
    """Some instruments of a channel, on one connection at a time."""

    feed: Feed
    number: int
    assignment: Assignment = field(init=False)
    link: Link | None = None
    _attempt: int = 0

    def __post_init__(self) -> None:
        self.assignment = Assignment(self.number)

    @property
    def symbols(self) -> set[Symbol]:
        """Return the instruments that it carries."""
        return self.assignment.symbols

    def carry(self, symbols: set[Symbol]) -> None:
        """Carry these from now on."""
        self.assignment.symbols = symbols
        for symbol in self.assignment.spells.keys() - symbols:
            del self.assignment.spells[symbol]
        if self.link is not None:
            self.link.changed.set()

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

    def _open(self, group: asyncio.TaskGroup) -> tuple[Link, "asyncio.Task[str]"]:
        link = Link(self.feed, self.assignment)
        return link, group.create_task(link.run())

    async def _until_over(
        self, group: asyncio.TaskGroup, link: Link, task: "asyncio.Task[str]"
    ) -> tuple[Link, "asyncio.Task[str]"] | None:
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

    def _note_end(self, link: Link, reason: str) -> None:
        self.assignment.fruitless += link.liveness.last_row is None and link.liveness.asked_for != set()
        log.warning("disconnected", channel=self.feed.name, shard=self.number, reason=reason)

    def _wait(self, link: Link) -> float:
        """Return how long to wait before the next connection."""
        good = link.liveness.last_row is not None and time.monotonic() - link.began > _STABLE_SECONDS
        self._attempt = 0 if good else self._attempt + 1
        return backoff_seconds(self._attempt, first=0.1, cap=_RECONNECT_SECONDS)


async def _first(*awaited: "asyncio.Task[Any] | asyncio.Event") -> None:
    """Wait until one of the tasks is done or one of the events is set."""
    waiters = {asyncio.ensure_future(one.wait()) if isinstance(one, asyncio.Event) else one for one in awaited}
    own = waiters - set(awaited)
    try:
        await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in own:
            waiter.cancel()
