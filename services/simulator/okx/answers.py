"""What the REST endpoints answer: pure functions of the market, the parameters and the exchange's time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.simulator.engine.maintenance import Window, status_row
from services.simulator.engine.market import DAY_MS, MINUTE_MS, Candle, Instrument, Market
from services.simulator.okx.spelling import candle_row, funding_row, instrument_row, settlement_row
from services.simulator.okx.streams import Shown, as_it_is, is_confirmed, visible_candle

Params = Mapping[str, str]

CANDLE_ROWS = 300
"""The most rows a candle page holds; asking for more silently gives this many."""
CANDLE_ROWS_DEFAULT = 100
RECENT_ROWS = 1_440
"""How far back /market/candles reaches; older windows answer with no rows."""
FUNDING_ROWS = 400
FUNDING_HISTORY_MS = 93 * DAY_MS
"""funding-rate-history reaches back about three months."""

INSTRUMENT_TYPES = ("SPOT", "MARGIN", "SWAP", "FUTURES", "OPTION", "EVENTS")
STATUS_STATES = ("scheduled", "ongoing", "pre_open", "completed", "canceled")
FAR_FUTURE_MS = 10**15


@dataclass(frozen=True, slots=True)
class Answer:
    """The envelope of the exchange and the HTTP status it travels under."""

    data: list[Any] = field(default_factory=list)
    code: str = "0"
    message: str = ""
    status: int = 200


class RefusedError(Exception):
    """A request that the exchange refuses."""

    def __init__(self, code: str, message: str, status: int) -> None:
        super().__init__(message)
        self.answer = Answer([], code, message, status)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How an endpoint answers, how often it may be asked, and what the limit counts by besides the address."""

    answer: Callable[["Exchange", Params, int], list[Any]]
    limit: int
    seconds: float = 2.0
    counted_by: str | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """A market as the exchange shows it."""

    market: Market
    history_delay_ms: int = 0
    """How long after a settlement its row appears in the history, in simulated time."""
    windows: Sequence[Window] = ()
    """Maintenance, as it is known by now."""
    shown: Shown = as_it_is
    """How a candle is shown that a fault has made odd."""

    def instruments(self, params: Params, now_ms: int) -> list[Any]:
        """Answer public/instruments: every contract of a type that is announced, listed or suspended."""
        inst_type = _required(params, "instType")
        if inst_type not in INSTRUMENT_TYPES:
            raise _parameter_error("instType")
        wanted = params.get("instId")
        if wanted and self._visible(wanted, now_ms) is None:
            raise _unknown_instrument()
        return [
            instrument_row(instrument, now_ms)
            for instrument in self.market.instruments.values()
            if instrument.inst_type == inst_type
            and instrument.state(now_ms) not in {"unknown", "gone"}
            and wanted in (None, "", instrument.inst_id)
            and params.get("instFamily") in (None, "", instrument.family)
        ]

    def funding_rate(self, params: Params, now_ms: int) -> list[Any]:
        """Answer public/funding-rate: one instrument, or all of them with instId=ANY."""
        inst_id = _required(params, "instId")
        if "," in inst_id:
            raise _parameter_error("instId")
        if inst_id != "ANY":
            return [self._funding_row(self._served(inst_id, now_ms), now_ms)]
        return [
            self._funding_row(instrument, now_ms)
            for instrument in self.market.instruments.values()
            if instrument.state(now_ms) == "live"
        ]

    def _funding_row(self, instrument: Instrument, now_ms: int) -> dict[str, str]:
        return funding_row(instrument, self.market.funding_period(instrument.inst_id, now_ms), now_ms)

    def funding_history(self, params: Params, now_ms: int) -> list[Any]:
        """Answer public/funding-rate-history, newest first."""
        instrument = self._served(_required(params, "instId"), now_ms)
        limit = _limit(params, FUNDING_ROWS, FUNDING_ROWS)
        begin, end = _window(params)
        begin = max(begin, now_ms - FUNDING_HISTORY_MS)
        end = min(end, now_ms - self.history_delay_ms + 1)
        rows = self.market.settlements(instrument.inst_id, begin, end) if begin < end else []
        return [settlement_row(instrument, row) for row in rows[-limit:][::-1]]

    def candles(self, params: Params, now_ms: int) -> list[Any]:
        """Answer market/candles: the newest 1440 minutes."""
        return self._candle_page(params, now_ms, now_ms // MINUTE_MS * MINUTE_MS - (RECENT_ROWS - 1) * MINUTE_MS)

    def history_candles(self, params: Params, now_ms: int) -> list[Any]:
        """Answer market/history-candles: everything since the listing, the forming minute included."""
        return self._candle_page(params, now_ms, 0)

    def _candle_page(self, params: Params, now_ms: int, earliest_ms: int) -> list[Any]:
        """Return the newest rows of the window, newest first; so `before` alone gives the newest rows, too."""
        instrument = self._served(_required(params, "instId"), now_ms)
        if params.get("bar", "1m") != "1m":
            raise _parameter_error("bar")
        limit = _limit(params, CANDLE_ROWS_DEFAULT, CANDLE_ROWS)
        begin, end = _window(params)
        begin, end = max(begin, earliest_ms), min(end, now_ms + 1)
        if begin >= end:
            return []
        rows: list[list[str]] = []
        while len(rows) < limit:
            candles = self.market.newest_candles(instrument.inst_id, begin, end, lacking := limit - len(rows))
            rows += self._shown_rows(instrument, candles, now_ms)
            if len(candles) < lacking:
                break
            end = candles[0].open_ms
        return rows

    def _shown_rows(self, instrument: Instrument, candles: Sequence[Candle], now_ms: int) -> list[list[str]]:
        """Spell minutes as they are shown, newest first; one that is not shown yet is not among them."""
        rows = []
        for candle in reversed(candles):
            seen = visible_candle(self.market, candle, instrument.inst_id, now_ms)
            closed = is_confirmed(instrument.inst_id, candle.open_ms, now_ms)
            rows.append(self.shown(instrument.inst_id, candle_row(seen, instrument, closed), now_ms))
        return [row for row in rows if row is not None]

    def time(self, _params: Params, now_ms: int) -> list[Any]:
        """Answer public/time."""
        return [{"ts": str(now_ms)}]

    def status(self, params: Params, now_ms: int) -> list[Any]:
        """Answer system/status: maintenance that is scheduled or under way, or in the state that is asked for."""
        wanted = params.get("state", "")
        if wanted not in {"", *STATUS_STATES}:
            raise _parameter_error("state")
        rows = [status_row(window, now_ms) for window in self.windows]
        return [row for row in rows if row["state"] in ({wanted} if wanted else {"scheduled", "ongoing"})]

    def underlying(self, _params: Params, _now_ms: int) -> list[Any]:
        """Answer public/underlying: there are no options here."""
        return [[]]

    def _visible(self, inst_id: str, now_ms: int) -> Instrument | None:
        instrument = self.market.instruments.get(inst_id)
        return None if instrument is None or instrument.state(now_ms) in {"unknown", "gone"} else instrument

    def _served(self, inst_id: str, now_ms: int) -> Instrument:
        instrument = self.market.instruments.get(inst_id)
        if instrument is None or not instrument.is_served(now_ms):
            raise _unknown_instrument()
        return instrument


ENDPOINTS: dict[str, Endpoint] = {
    "/api/v5/public/instruments": Endpoint(Exchange.instruments, 20, counted_by="instType"),
    "/api/v5/public/underlying": Endpoint(Exchange.underlying, 20),
    "/api/v5/public/funding-rate": Endpoint(Exchange.funding_rate, 10, counted_by="instId"),
    "/api/v5/public/funding-rate-history": Endpoint(Exchange.funding_history, 10, counted_by="instId"),
    "/api/v5/market/candles": Endpoint(Exchange.candles, 40),
    "/api/v5/market/history-candles": Endpoint(Exchange.history_candles, 20),
    "/api/v5/public/time": Endpoint(Exchange.time, 10),
    "/api/v5/system/status": Endpoint(Exchange.status, 1, seconds=5.0),
}
"""The endpoints with the documented limits."""


def answer(exchange: Exchange, path: str, params: Params, now_ms: int) -> Answer:
    """Answer a request as the exchange would."""
    try:
        return Answer(ENDPOINTS[path].answer(exchange, params, now_ms))
    except RefusedError as refusal:
        return refusal.answer


def _required(params: Params, name: str) -> str:
    value = params.get(name, "")
    if not value:
        raise RefusedError("50014", f"Parameter {name} can not be empty", 400)
    return value


def _parameter_error(name: str) -> RefusedError:
    return RefusedError("51000", f"Parameter {name} error", 400)


def _unknown_instrument() -> RefusedError:
    return RefusedError("51001", "Instrument ID, Instrument ID code, or Spread ID doesn't exist.", 200)


def _whole(params: Params, name: str, default: int) -> int:
    text = params.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit()):
        raise _parameter_error(name)
    return min(int(text), FAR_FUTURE_MS)


def _limit(params: Params, default: int, most: int) -> int:
    limit = _whole(params, "limit", default)
    if limit == 0:
        raise _parameter_error("limit")
    return min(limit, most)


def _window(params: Params) -> tuple[int, int]:
    """Turn the cursors into [begin, end): `before` means newer than, `after` older than, both exclusive."""
    return _whole(params, "before", -1) + 1, _whole(params, "after", FAR_FUTURE_MS)
