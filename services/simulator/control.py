"""Truth and control on the REST port, under /sim: no limit, no fault, nothing of OKX."""

from typing import Any

import msgspec
from aiohttp import web

from services.simulator.engine.clock import SimulatedClock
from services.simulator.engine.life import BadChangeError, LivingMarket, read_changes
from services.simulator.faults.chaos import Chaos
from services.simulator.faults.kinds import BadFaultError, read_faults
from services.simulator.faults.plan import FaultPlan
from services.simulator.okx.spelling import candle_row, funding_row, settlement_row
from services.simulator.stats import Stats


class _Order(msgspec.Struct, forbid_unknown_fields=True):
    """What chaos is to do: stop, or (false) go on."""

    stop: bool


class Control:
    """What a test asks the simulator itself."""

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

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/sim/clock", self.clock),
            web.get("/sim/truth/candles", self.candles),
            web.get("/sim/truth/refused", self.refused),
            web.get("/sim/truth/funding", self.funding),
            web.get("/sim/truth/predicted", self.predicted),
            web.post("/sim/faults", self.arm),
            web.get("/sim/faults", self.faults),
            web.post("/sim/market", self.change),
            web.post("/sim/chaos", self.steer),
            web.get("/sim/chaos", self.chaos),
            web.get("/sim/stats", self.stats),
        ]

    async def clock(self, _request: web.Request) -> web.Response:
        """Return simulated time."""
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
        """Return every minute that opens in [begin, end), oldest first, as closed OKX rows; none that is `refused`."""
        inst_id, rows = self._closed(request)
        return _json([true for row in rows if (true := self._plan.true_row(inst_id, row)) is not None])

    async def refused(self, request: web.Request) -> web.Response:
        """Return the open times in [begin, end) of which the exchange shows nothing, for good, that can be believed."""
        inst_id, rows = self._closed(request)
        return _json([int(row[0]) for row in rows if self._plan.true_row(inst_id, row) is None])

    def _closed(self, request: web.Request) -> tuple[str, list[list[str]]]:
        inst_id, begin_ms, end_ms = self._window(request)
        instrument = self._market.instruments[inst_id]
        rows = self._market.candles(inst_id, begin_ms, end_ms)
        return inst_id, [candle_row(row, instrument, confirmed=True) for row in rows]

    async def funding(self, request: web.Request) -> web.Response:
        """Return every settlement in [begin, end), oldest first, as OKX history rows."""
        inst_id, begin_ms, end_ms = self._window(request)
        instrument = self._market.instruments[inst_id]
        rows = self._market.settlements(inst_id, begin_ms, end_ms)
        return _json([settlement_row(instrument, row) for row in rows])

    async def predicted(self, request: web.Request) -> web.Response:
        """Return the fundingRate of every live swap at an instant, spelled as the exchange spells it."""
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
            faults = read_faults(await request.read(), self._market.instruments)
        except BadFaultError as error:
            return web.json_response({"error": str(error)}, status=400)
        now_ms = self._clock.now_ms()
        for fault in faults:
            self._plan.add(fault, now_ms)
        return _json({"armed": len(faults), "now_ms": now_ms})

    async def faults(self, _request: web.Request) -> web.Response:
        """Return what the faults did so far."""
        return _json(list(self._plan.log))

    async def change(self, request: web.Request) -> web.Response:
        """Make one change, or a list of them, part of the market's future; those before a bad one are made."""
        now_ms = self._clock.now_ms()
        try:
            changes = read_changes(await request.read())
            for change in changes:
                self._market.change(change, now_ms)
        except BadChangeError as error:
            return web.json_response({"error": str(error)}, status=400)
        return _json({"changes": len(changes), "now_ms": now_ms})

    async def chaos(self, _request: web.Request) -> web.Response:
        """Return of each kind how many faults chaos has armed and how many of them happened."""
        if self._chaos is None:
            return web.json_response({"error": "there is no chaos: start with --chaos SEED"}, status=404)
        return _json(
            self._chaos.as_json()
            | {
                "armed": dict(self._plan.chaos_armed),
                "happened": dict(self._plan.chaos_happened),
                "waiting": self._plan.armed_now(),
            }
        )

    async def steer(self, request: web.Request) -> web.Response:
        """Stop the chaos, and take back what it has armed, or let it go on."""
        if self._chaos is None:
            return await self.chaos(request)
        try:
            order = msgspec.json.decode(await request.read(), type=_Order)
        except msgspec.MsgspecError as error:
            return web.json_response({"error": f'not an order: {error}; say {{"stop": true}}'}, status=400)
        now_ms = self._clock.now_ms()
        self._chaos.steer(now_ms, stop=order.stop)
        if order.stop:
            self._plan.stop_chaos(now_ms)
        return await self.chaos(request)

    async def stats(self, _request: web.Request) -> web.Response:
        """Return the counters."""
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
