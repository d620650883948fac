"""Settled funding rates, complete and checked: every settlement is taken after the roll and held against history. I/O.

OKX's history reaches back three months only, so a hole is healed while it can be.
"""

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta

import structlog

from services.collector.channels.channel import Surroundings
from services.collector.channels.funding_intake import FundingIntake
from services.collector.metrics import SETTLEMENTS
from services.collector.tracking.universe import Tracker
from shared.exchanges.base import ExchangeError, UnknownInstrument
from shared.grid import DAY, floor_hour
from shared.symbol import Symbol

log = structlog.get_logger()

CHECK_AFTER_SECONDS = 30.0
"""How long after a roll the history is asked: its row was seen to take seconds to a minute."""
CHECKS = 20
"""Times that a row which is not there yet is looked for."""
_MISSING_EVERY_SECONDS = 30.0
_MOST_ROUNDS = 64
"""A settlement that the history never shows is asked for every 32 minutes in the end."""
_SHOWN_AFTER = timedelta(minutes=1)
"""How long after a settlement the history shows it at the latest, nearly always."""
_RETRY_SECONDS = 5.0
_LOOK_SECONDS = 0.2


class Settlements:
    """Asks the funding history: for new symbols, after every roll, and for what the ledger lacks."""

    def __init__(self, around: Surroundings, tracker: Tracker, intake: FundingIntake) -> None:
        self._service = around.service
        self._publisher = around.publisher
        self._instruments = around.instruments
        self._tracker = tracker
        self._intake = intake
        self._asked: dict[Symbol, datetime] = {}
        self._not_before: dict[str, float] = {}
        self._hours: dict[Symbol, datetime] = {}
        """Up to which full hour the history of a symbol was asked for that is not pushed."""
        self._rounds: dict[Symbol, int] = {}
        """How often in a row a symbol was found to lack a settlement."""
        self._checks: dict[tuple[Symbol, datetime], tuple[float, int]] = {}
        """(symbol, settlement) → when to look for it in the history, and how often that was done."""

    def ask(self, symbols: Iterable[Symbol]) -> None:
        """Ask for the whole history of some symbols, as far as they are wanted."""
        for symbol in symbols:
            if (wanted := self._tracker.symbols.get(symbol)) is not None:
                self.ask_since(symbol, wanted.begin)

    def ask_since(self, symbol: Symbol, begin: datetime) -> None:
        """Ask for the history of a symbol from an instant on."""
        self._asked[symbol] = min(begin, self._asked.get(symbol, begin))

    async def run(self) -> None:
        """Ask for ever."""
        loop = asyncio.get_running_loop()
        look_for_missing = loop.time()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if loop.time() >= look_for_missing:
                look_for_missing = loop.time() + _MISSING_EVERY_SECONDS
                self._ask_for_missing()
                self._ask_where_nothing_is_pushed()
            self.ask(symbol for symbol, wanted in self._tracker.symbols.items() if not wanted.asked)
            self._note_rolls(loop.time())
            for symbol in sorted(self._asked):  # also one that was let go meanwhile: its candles were few
                if self._not_before.get(symbol, 0.0) <= loop.time():
                    await self._fetch(symbol, self._asked.pop(symbol))

    def _ask_for_missing(self) -> None:
        """Ask for every settlement that is due and not there, the longer a history lacks it the more seldom."""
        now = self._service.clock.now()
        missing = {symbol for symbol, wanted in self._tracker.symbols.items() if wanted.gaps(now)}
        for symbol in self._rounds.keys() - missing:
            del self._rounds[symbol]
        for symbol in missing:
            self._rounds[symbol] = rounds = self._rounds.get(symbol, -1) + 1
            if not rounds & (rounds - 1) or rounds % _MOST_ROUNDS == 0:  # after 1, 2, 4, ... rounds
                self.ask([symbol])

    def _ask_where_nothing_is_pushed(self) -> None:
        """Ask once after each full hour for symbols without a message: then no roll shows what was settled.

        No period is shorter than an hour. An exchange may have settled rates in its history only.
        """
        now = self._service.clock.now()
        hour = floor_hour(now - _SHOWN_AFTER)
        for symbol in self._tracker.followed(now):
            pushed = self._intake.last_pushed(symbol)
            if self._hours.setdefault(symbol, hour) < hour and (pushed is None or pushed < hour):
                self.ask_since(symbol, self._hours[symbol])
            self._hours[symbol] = hour

    def _note_rolls(self, now: float) -> None:
        """Plan the check of what was settled, and ask at once for what was missed."""
        for symbol, at in self._intake.take_missed():
            self.ask_since(symbol, at)
        for settled in self._intake.take_settled():
            self._checks[settled.symbol, settled.funding_time] = (now + CHECK_AFTER_SECONDS, 0)
        for (checked, at), (due, _) in self._checks.items():
            if due <= now and checked not in self._asked:
                self.ask_since(checked, at)

    async def _fetch(self, symbol: Symbol, begin: datetime) -> None:
        """Fetch the settlements since a day before `begin`: the day before serves the first bars of a feature."""
        now = self._service.clock.now()
        loop_now = asyncio.get_running_loop().time()
        try:
            page = await self._service.exchange.settlements(symbol, begin - DAY, now, now=now)
        except UnknownInstrument as error:
            log.warning("no funding history", symbol=symbol, error=str(error))
            self._forget_checks(symbol)
            self._note_asked(symbol, begin)
            self._give_up(symbol)
            return
        except ExchangeError as error:
            self._service.health.problem("settlements", f"the exchange does not give the funding history: {error}")
            self.ask_since(symbol, begin)
            self._not_before[symbol] = loop_now + _RETRY_SECONDS
            return
        self._service.health.resolve("settlements")
        for row in page.refused:
            self._service.set_aside("settlements", row.row, row.reason)
        self._checked(symbol, {settled.funding_time for settled in page.events}, loop_now)
        fresh = self._intake.settled_by_history(page.events)
        await self._publisher.put(fresh)
        self._intake.published(fresh)
        self._note_asked(symbol, begin)

    def _note_asked(self, symbol: Symbol, begin: datetime) -> None:
        """Note that the history was asked for, as far as the symbol is wanted."""
        wanted = self._tracker.symbols.get(symbol)
        if wanted is not None and begin <= wanted.begin:
            wanted.asked = True

    def _give_up(self, symbol: Symbol) -> None:
        """Expect nothing more of an instrument that is gone by other evidence, too."""
        wanted = self._tracker.symbols.get(symbol)
        if wanted is not None and symbol in self._instruments.gone:
            for gap in wanted.gaps(self._service.clock.now()):
                wanted.absent.add_span(gap.begin, gap.end)

    def _checked(self, symbol: Symbol, there: set[datetime], now: float) -> None:
        for (checked, at), (due, times) in list(self._checks.items()):
            if checked != symbol or due > now:
                continue
            if at in there or times >= CHECKS:
                del self._checks[checked, at]
                if at not in there:
                    SETTLEMENTS.labels("unconfirmed").inc()
                    log.warning("the history never showed a settlement", symbol=symbol, funding_time=at.isoformat())
            else:
                self._checks[checked, at] = (now + CHECK_AFTER_SECONDS, times + 1)

    def _forget_checks(self, symbol: Symbol) -> None:
        for checked, at in list(self._checks):
            if checked == symbol:
                del self._checks[checked, at]
