"""`python -m services.ranker`: ranks at the start and every RANK_EVERY_HOURS, and publishes the universe."""

import asyncio
import sys
import time
from datetime import datetime
from typing import Annotated

import msgspec
import structlog
import typer

from services.ranker.fetch import NothingToRankError, fetch
from services.ranker.history import keep, kept, not_stored, publish_again
from services.ranker.metrics import CHANGES, RANKED, RANKED_TIME, RANKINGS
from services.ranker.ranking import Market, rank, ranking_of
from services.ranker.settings import RankerSettings
from shared.backoff import backoff_seconds
from shared.bus.connection import BusError
from shared.datasets.universe import Ranking
from shared.exchanges.base import ExchangeError
from shared.exchanges.registry import instance_of
from shared.runtime.command import run
from shared.runtime.schedule import every_hours, firings
from shared.runtime.service import Service, keep_going, running, wait_for_clock
from shared.runtime.settings import read_settings
from shared.storage.files import replace_text
from shared.storage.layout import universe_file

log = structlog.get_logger()

_LOOK_SECONDS = 5.0
"""How often to look whether Redis still has the universe."""


async def rank_once(service: Service, settings: RankerSettings) -> Ranking:
    """Fetch, rank, keep and publish. Raises `ExchangeError`, `BusError` or `OSError`; then the last universe stays."""
    last = (await asyncio.to_thread(kept, settings.data_dir, service.exchange.name))[-1:]
    market = await fetch(service, {place.symbol for ranking in last for place in ranking.ranks})
    now = service.clock.now()
    rates = market.rates.values()
    ranks = rank(rates, market.instruments, ranked_time=now, rank_by=settings.rank_by, top_n=settings.top_n)
    if not ranks:
        raise NothingToRankError(
            f"none of {len(market.names):,} swaps is a live crypto swap with one of the {len(rates):,} funding rates"
        )
    _note_left_out(service, market)
    await service.bus.create_groups()
    ranking = ranking_of(ranks, await _universe_before(service, settings), top_n=settings.top_n)
    await asyncio.to_thread(keep, settings.data_dir, ranking)
    await service.bus.set_universe(ranking)
    symbols = msgspec.json.format(msgspec.json.encode(ranking.members), indent=2).decode()
    await asyncio.to_thread(replace_text, universe_file(settings.data_dir, service.exchange.name), symbols + "\n")
    _count(ranking)
    log.info(
        "ranked",
        at=now.isoformat(),
        swaps=len(ranks),
        members=len(ranking.members),
        added=ranking.added,
        removed=ranking.removed,
    )
    return ranking


def _note_left_out(service: Service, market: Market) -> None:
    """Show which swaps are not ranked although they are traded."""
    flagged = {rate.symbol: f"{rate.funding_rate:+.4%}, {rate.flag}" for rate in market.rates.values() if rate.flag}
    details = service.health.details
    details["unrated"], details["flagged_rates"] = market.unrated, flagged
    if market.unrated or flagged:
        log.warning("swaps are not ranked", without_rate=market.unrated, implausible=flagged)


async def _universe_before(service: Service, settings: RankerSettings) -> Ranking | None:
    """Return the ranking in force; where Redis has forgotten it, the last ones are published again first."""
    before = await service.bus.universe(service.exchange.name)
    if before is None:
        await publish_again(service.bus, await asyncio.to_thread(kept, settings.data_dir, service.exchange.name))
        before = await service.bus.universe(service.exchange.name)
    return before


def _count(ranking: Ranking) -> None:
    RANKINGS.labels("ok").inc()
    RANKED_TIME.set(ranking.ranked_time.timestamp())
    RANKED.set(len(ranking.ranks))
    CHANGES.labels("added").inc(len(ranking.added))
    CHANGES.labels("removed").inc(len(ranking.removed))


class Ranker:
    """A running ranker, and the ranking in force."""

    def __init__(self, service: Service, settings: RankerSettings) -> None:
        self.service = service
        self.settings = settings
        self.ranking: Ranking | None = None

    async def run(self) -> None:
        """Rank now and on schedule until the service is stopped."""
        keeper = asyncio.create_task(keep_going(self.service, "universe", self._keep_universe))
        try:
            await self.rank_patiently()
            async for _ in firings(every_hours(self.settings.rank_every_hours), self.service):
                await self.rank_patiently()
        finally:
            keeper.cancel()

    async def rank_patiently(self) -> None:
        """Rank; on a failure keep the last universe, say so, and try again until it works or the service stops."""
        service, attempt = self.service, 0
        while True:
            try:
                ranking = await service.unless_stopped(rank_once(service, self.settings))
            except (ExchangeError, BusError, OSError) as error:
                RANKINGS.labels("failed").inc()
                service.health.problem(
                    "ranking", f"ranking fails, the last universe stays: {type(error).__name__}: {error}"
                )
                if not await service.pause(backoff_seconds(attempt, first=1.0, cap=60.0)):
                    return
                attempt += 1
            else:
                if ranking is None:
                    return
                self.ranking = ranking
                service.health.resolve("ranking")
                service.health.started = True
                service.health.details["ranked_time"] = ranking.ranked_time.isoformat()
                service.health.details["members"] = len(ranking.members)
                return

    async def _keep_universe(self) -> None:
        """Publish rankings again that Redis has lost: all of them, or those of a time that it has gone back before."""
        published: dict[datetime, float] = {}
        known: list[Ranking] = []
        while await self.service.pause(_LOOK_SECONDS):
            if self.ranking is None:
                continue
            bus, exchange = self.service.bus, self.service.exchange.name
            if not known or known[-1].ranked_time != self.ranking.ranked_time:  # the file changes with a ranking only
                known = await asyncio.to_thread(kept, self.settings.data_dir, exchange)
            try:
                if await bus.universe(exchange) is None:
                    await publish_again(bus, known or [self.ranking])
                    continue
                lost = not_stored(known, await bus.stored_rankings(exchange), published, time.monotonic())
                if lost:
                    await bus.publish(lost)
                    log.warning("not stored yet, published again", rankings=[str(one.ranked_time) for one in lost])
            except BusError as error:
                log.info("universe not looked after", error=type(error).__name__)


async def serve(settings: RankerSettings, *, once: bool) -> int:
    """Run the ranker until it is stopped, or for one ranking; return the exit code."""
    name, port = instance_of("ranker", settings.exchange), 0 if once else settings.ranker_metrics_port
    async with running(name, settings, metrics_port=port) as service:
        if once:
            await wait_for_clock(service, patience_seconds=30)
            try:
                ranking = await service.unless_stopped(rank_once(service, settings))
            except (ExchangeError, BusError, OSError) as error:
                log.error("ranking failed", error=f"{type(error).__name__}: {error}")  # noqa: TRY400 - no trace needed
                return 1
            if ranking is None:
                log.error("stopped before anything was ranked")
                return 1
            return 0
        if not await wait_for_clock(service):
            return 0
        await Ranker(service, settings).run()
    return 0


def main(
    once: Annotated[bool, typer.Option("--once", help="Rank once, publish, and end")] = False,
) -> None:
    """Rank all perpetual swaps of the exchange by absolute funding rate and publish the universe.

    Settings come from the environment and `.env`; see .env.example.
    """
    sys.exit(asyncio.run(serve(read_settings(RankerSettings), once=once)))


if __name__ == "__main__":
    run(main)
