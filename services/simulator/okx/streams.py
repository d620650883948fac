"""What is pushed when: the schedule of all channels in simulated time, without a socket in sight."""

import heapq
import itertools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple
from zlib import crc32

import msgspec

from services.simulator.engine.forming import partial_candle
from services.simulator.engine.funding import PROCESSING_MS
from services.simulator.engine.maintenance import Window, status_row
from services.simulator.engine.market import MINUTE_MS, Candle, Market
from services.simulator.faults.fault import Path, Push
from services.simulator.okx.spelling import candle_push, candle_row, funding_row, instrument_row

CANDLES = "candle1m"
FUNDING = "funding-rate"
INSTRUMENTS = "instruments"
STATUS = "status"

PATHS: dict[str, Path] = {CANDLES: "business", FUNDING: "public", INSTRUMENTS: "public", STATUS: "public"}
"""The URL on which each channel lives; on the other one it is refused with 60018."""

CONFIRM_DELAY_MS = (20, 320)
"""A closed minute is confirmed this long after its end; by instrument and minute, so that the order varies."""

FORMING_EVERY_MS = 1_000
FUNDING_EVERY_MS = (30_000, 90_000)
WALL_GAP_MS = 500
"""However fast time runs, an instrument's forming rows and its funding are at least this far apart in wall time."""

SETTLED_PUSH_MS = (35, PROCESSING_MS + 500)
"""After a settlement: a push that reads `processing`, and one that reads `settled`."""

Event = Literal["minute", "forming", "confirm", "funding", "settlement", "news", "delayed"]

Shown = Callable[[str, list[str], int], list[str] | None]
"""Of an instId, a candle row and an instant: the row that is shown; None: none is."""


def as_it_is(_inst_id: str, row: list[str], _now_ms: int) -> list[str] | None:
    """Show a row as it is."""
    return row


class Key(NamedTuple):
    """What can be subscribed to; the channel `instruments` has an instType for an instId, `status` has nothing."""

    channel: str
    inst_id: str


class _Due(NamedTuple):
    due_ms: int
    number: int
    event: Event
    key: Key
    activation: int
    open_ms: int
    edition: int = 0
    push: Push | None = None


def confirm_delay_ms(inst_id: str, open_ms: int) -> int:
    """Return how long after its end a minute is confirmed, over the socket and over REST."""
    low, high = CONFIRM_DELAY_MS
    return low + crc32(f"{inst_id}:{open_ms}".encode()) % (high - low)


def is_confirmed(inst_id: str, open_ms: int, now_ms: int) -> bool:
    """Return whether a minute reads confirm 1 by now."""
    return now_ms >= open_ms + MINUTE_MS + confirm_delay_ms(inst_id, open_ms)


def visible_candle(market: Market, candle: Candle, inst_id: str, now_ms: int) -> Candle:
    """Return a minute as it looks at an instant."""
    if now_ms >= candle.open_ms + MINUTE_MS:
        return candle
    return partial_candle(candle, now_ms, market.instruments[inst_id].decimals_at(candle.open_ms))


class Streams:
    """The pushes of every subscribed (channel, instrument), made once for all who subscribed."""

    def __init__(self, market: Market, speed: float, windows: Sequence[Window] = (), shown: Shown = as_it_is) -> None:
        self._market = market
        self._shown = shown
        self._windows = windows
        self._gap_ms = int(WALL_GAP_MS * speed)
        self._heap: list[_Due] = []
        self._numbers = itertools.count()
        self._active: dict[Key, int] = {}
        self._minutes: dict[str, Candle | None] = {}
        self._told_ms = 0
        """Everything up to here has been pushed."""
        self._edition = 0
        """Goes up when the schedule of news is made again."""

    def activate(self, key: Key, now_ms: int) -> None:
        """Begin to push a key, from an instant on."""
        if key in self._active:
            return
        self._active[key] = next(self._numbers)
        if key.channel in {INSTRUMENTS, STATUS}:
            self._expect_news(key, now_ms)
            return
        if key.channel == FUNDING:
            self._at(now_ms + self._funding_gap(key, now_ms), "funding", key)
            self._expect_settlement(key, now_ms)
            return
        open_ms = now_ms // MINUTE_MS * MINUTE_MS
        if not is_confirmed(key.inst_id, open_ms - MINUTE_MS, now_ms):
            self._expect_confirm(key, open_ms - MINUTE_MS)
        self._load_minute(key.inst_id, open_ms)
        self._expect_confirm(key, open_ms)
        self._expect_minute(key, open_ms + MINUTE_MS)
        self._at(now_ms + max(FORMING_EVERY_MS, self._gap_ms), "forming", key, open_ms)

    def deactivate(self, key: Key) -> None:
        """Stop pushing a key; what was scheduled for it is dropped when it is due."""
        self._active.pop(key, None)
        if key.channel == CANDLES:
            self._minutes.pop(key.inst_id, None)

    def delay(self, key: Key, push: Push, due_ms: int) -> None:
        """Bring a push back later."""
        self._at(due_ms, "delayed", key, push=push)

    def renew_news(self) -> None:
        """Look again when instruments change and maintenance begins: something was added to the schedule."""
        self._edition += 1
        for key in self._active:
            if key.channel in {INSTRUMENTS, STATUS}:
                self._expect_news(key, self._told_ms)

    def next_due_ms(self) -> int | None:
        """Return when something is due next."""
        return self._heap[0].due_ms if self._heap else None

    def due(self, now_ms: int) -> tuple[Push, bool] | None:
        """Take the next push that is due, and whether it comes back from a delay; None when nothing is left."""
        while self._heap and self._heap[0].due_ms <= now_ms:
            due = heapq.heappop(self._heap)
            if self._active.get(due.key) != due.activation:
                continue
            push = due.push or self._happen(due, now_ms)
            if push:
                return push, due.event == "delayed"
        self._told_ms = now_ms
        return None

    def snapshot(self, key: Key, now_ms: int) -> Push | None:
        """Return what a fresh subscriber is sent at once: the forming minute, the current funding, the last status."""
        if key.channel == STATUS:
            return self._status(self._windows[-1:], now_ms) if self._windows else None
        if key.channel == INSTRUMENTS:
            return None
        if self._market.instruments[key.inst_id].state(now_ms) != "live":
            return None
        if key.channel == FUNDING:
            return self._funding(key, now_ms)
        return self._forming(key, now_ms // MINUTE_MS * MINUTE_MS, now_ms)

    def _happen(self, due: _Due, now_ms: int) -> Push | None:
        key, open_ms = due.key, due.open_ms
        if due.event == "news":
            return self._news(due)
        live = self._market.instruments[key.inst_id].state(due.due_ms) == "live"
        if due.event == "confirm":
            return self._confirm(key, open_ms, now_ms) if live else None
        if due.event == "minute":
            self._load_minute(key.inst_id, open_ms)
            self._expect_confirm(key, open_ms)
            self._expect_minute(key, open_ms + MINUTE_MS)
            self._at(due.due_ms + max(FORMING_EVERY_MS, self._gap_ms), "forming", key, open_ms)
            return self._forming(key, open_ms, now_ms) if live else None
        if due.event == "forming":
            return self._next_forming(key, open_ms, now_ms) if live else None
        # Funding is pushed as of the instant it is due: however late the pump is, no settlement is skipped.
        if due.event == "settlement":
            self._expect_settlement(key, due.due_ms)
        else:
            self._at(due.due_ms + self._funding_gap(key, due.due_ms), "funding", key)
        return self._funding(key, due.due_ms) if live else None

    def _confirm(self, key: Key, open_ms: int, now_ms: int) -> Push | None:
        rows = self._market.candles(key.inst_id, open_ms, open_ms + 1)
        if not rows:
            return None
        closed = candle_row(rows[0], self._market.instruments[key.inst_id], confirmed=True)
        row = self._shown(key.inst_id, closed, now_ms)
        if row is None:
            return None
        return Push("business", CANDLES, key.inst_id, "confirm", candle_push(key.inst_id, row))

    def _next_forming(self, key: Key, open_ms: int, now_ms: int) -> Push | None:
        """Push again within the minute, as long as something is traded in it."""
        candle = self._minutes.get(key.inst_id)
        next_ms = now_ms + max(FORMING_EVERY_MS, self._gap_ms)
        if candle is None or candle.open_ms != open_ms or now_ms >= open_ms + MINUTE_MS or not candle.base_volume:
            return None
        if next_ms < open_ms + MINUTE_MS:
            self._at(next_ms, "forming", key, open_ms)
        return self._forming(key, open_ms, now_ms)

    def _forming(self, key: Key, open_ms: int, now_ms: int) -> Push | None:
        candle = self._minutes.get(key.inst_id)
        if candle is None or candle.open_ms != open_ms:
            return None
        instrument = self._market.instruments[key.inst_id]
        seen = partial_candle(candle, now_ms, instrument.decimals_at(open_ms))
        payload = candle_push(key.inst_id, candle_row(seen, instrument, confirmed=False))
        return Push("business", CANDLES, key.inst_id, "forming", payload)

    def _funding(self, key: Key, now_ms: int) -> Push:
        period = self._market.funding_period(key.inst_id, now_ms)
        row = funding_row(self._market.instruments[key.inst_id], period, now_ms)
        message = {"arg": {"channel": FUNDING, "instId": key.inst_id}, "data": [row]}
        return Push("public", FUNDING, key.inst_id, "funding", msgspec.json.encode(message))

    def _news(self, due: _Due) -> Push | None:
        """Push what changes at an instant, if this is still the schedule."""
        if due.edition != self._edition:
            return None
        self._expect_news(due.key, due.due_ms)
        if due.key.channel == STATUS:
            return self._status([row for row in self._windows if due.due_ms in row.turning_points()], due.due_ms)
        changed = [
            instrument_row(instrument, due.due_ms)
            for instrument in self._market.instruments.values()
            if instrument.inst_type == due.key.inst_id and due.due_ms in instrument.turning_points()
        ]
        arg = {"channel": INSTRUMENTS, "instType": due.key.inst_id}
        message = msgspec.json.encode({"arg": arg, "data": changed})
        return Push("public", INSTRUMENTS, due.key.inst_id, "instruments", message)

    def _status(self, windows: Sequence[Window], at_ms: int) -> Push | None:
        message = {"arg": {"channel": STATUS}, "data": [status_row(window, at_ms) for window in windows]}
        return Push("public", STATUS, "", "status", msgspec.json.encode(message))

    def _expect_news(self, key: Key, after_ms: int) -> None:
        """Wait for the next instant at which anything of a channel changes."""
        if key.channel == STATUS:
            instants = [instant for window in self._windows for instant in window.turning_points()]
        else:
            instruments = (row for row in self._market.instruments.values() if row.inst_type == key.inst_id)
            instants = [instant for instrument in instruments for instant in instrument.turning_points()]
        upcoming = min((instant for instant in instants if instant > after_ms), default=None)
        if upcoming is not None:
            self._at(upcoming, "news", key, edition=self._edition)

    def _load_minute(self, inst_id: str, open_ms: int) -> None:
        rows = self._market.candles(inst_id, open_ms, open_ms + 1)
        self._minutes[inst_id] = rows[0] if rows else None

    def _expect_confirm(self, key: Key, open_ms: int) -> None:
        self._at(open_ms + MINUTE_MS + confirm_delay_ms(key.inst_id, open_ms), "confirm", key, open_ms)

    def _expect_minute(self, key: Key, open_ms: int) -> None:
        """Let the new minute begin before or after the old one is confirmed: OKX promises no order."""
        delay = confirm_delay_ms(key.inst_id, open_ms - MINUTE_MS)
        self._at(open_ms + (5 if delay % 2 else delay + 5), "minute", key, open_ms)

    def _expect_settlement(self, key: Key, now_ms: int) -> None:
        period = self._market.funding_period(key.inst_id, now_ms)
        instants = (start + after for start in (period.began_ms, period.funding_ms) for after in SETTLED_PUSH_MS)
        self._at(next(instant for instant in instants if instant > now_ms), "settlement", key)

    def _funding_gap(self, key: Key, now_ms: int) -> int:
        low, high = FUNDING_EVERY_MS
        return max(low + crc32(f"{key.inst_id}:{now_ms}".encode()) % (high - low), self._gap_ms)

    def _at(
        self, due_ms: int, event: Event, key: Key, open_ms: int = 0, *, edition: int = 0, push: Push | None = None
    ) -> None:
        activation = self._active.get(key)
        if activation is not None:
            number = next(self._numbers)
            heapq.heappush(self._heap, _Due(due_ms, number, event, key, activation, open_ms, edition, push))
