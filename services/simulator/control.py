"""Truth and control on the REST port, under /sim: no limit, no fault, nothing of OKX."""

from typing import Any

import msgspec
from aiohttp import web

from services.simulator.clock import SimulatedClock
from services.simulator.faults import BadFaultError, FaultPlan, read_faults
from services.simulator.market import Market
from services.simulator.spelling import candle_row, funding_row, settlement_row
from services.simulator.stats import Stats


class Control:
    """What a test asks the simulator itself."""

    def __init__(self, market: Market, clock: SimulatedClock, plan: FaultPlan, stats: Stats) -> None:
        self._market = market
        self._clock = clock
        self._plan = plan
        self._stats = stats

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/sim/clock", self.clock),
            web.get("/sim/truth/candles", self.candles),
            web.get("/sim/truth/funding", self.funding),
            web.get("/sim/truth/predicted", self.predicted),
            web.post("/sim/faults", self.arm),
            web.get("/sim/faults", self.faults),
            web.get("/sim/stats", self.stats),
        ]

    async def clock(self, _request: web.Request) -> web.Response:
        """Tell simulated time."""
        clock = self._clock
        return _json(
            {
                "now_ms": clock.now_ms(),
                "start_ms": clock.start_ms,
                "end_ms": clock.end_ms,
                "speed": clock.speed,
                "ended": clock.ended(),
            }
        )

    async def candles(self, request: web.Request) -> web.Response:
        """Tell every minute that opens in [begin, end), oldest first, as closed OKX rows."""
        inst_id, begin_ms, end_ms = self._window(request)
        instrument = self._market.instruments[inst_id]
        rows = self._market.candles(inst_id, begin_ms, end_ms)
        return _json([candle_row(row, instrument, confirmed=True) for row in rows])

    async def funding(self, request: web.Request) -> web.Response:
        """Tell every settlement in [begin, end), oldest first, as OKX history rows."""
        inst_id, begin_ms, end_ms = self._window(request)
        instrument = self._market.instruments[inst_id]
        rows = self._market.settlements(inst_id, begin_ms, end_ms)
        return _json([settlement_row(instrument, row) for row in rows])

    async def predicted(self, request: web.Request) -> web.Response:
        """Tell the fundingRate of every live swap at an instant, spelled as the exchange spells it."""
        at_ms = _whole(request, "at", self._clock.now_ms())
        return _json(
            {
                inst_id: funding_row(instrument, self._market.funding_period(inst_id, at_ms), at_ms)["fundingRate"]
                for inst_id, instrument in self._market.instruments.items()
                if instrument.inst_type == "SWAP" and instrument.state(at_ms) == "live"
            }
        )

    async def arm(self, request: web.Request) -> web.Response:
        """Arm one fault or a list of them."""
        try:
            faults = read_faults(await request.read())
        except BadFaultError as error:
            return web.json_response({"error": str(error)}, status=400)
        now_ms = self._clock.now_ms()
        for fault in faults:
            self._plan.add(fault, now_ms)
        return _json({"armed": len(faults), "now_ms": now_ms})

    async def faults(self, _request: web.Request) -> web.Response:
        """Tell what the faults did so far."""
        return _json(list(self._plan.log))

    async def stats(self, _request: web.Request) -> web.Response:
        """Tell the counters."""
        return _json(self._stats.as_json())

    def _window(self, request: web.Request) -> tuple[str, int, int]:
        """Read instId, begin and end; without an end, up to now."""
        inst_id = request.query.get("instId", "")
        if inst_id not in self._market.instruments:
            raise web.HTTPNotFound(text=f"no instrument is called {inst_id!r}")
        return inst_id, _whole(request, "begin", 0), _whole(request, "end", self._clock.now_ms() + 1)


def _whole(request: web.Request, name: str, default: int) -> int:
    try:
        return int(request.query.get(name, default))
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"`{name}` must be Unix ms") from error


def _json(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
