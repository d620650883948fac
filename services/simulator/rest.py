"""The REST port: OKX's paths with their limits and faults, and the simulator's own under /sim."""

import itertools
import time

import msgspec
from aiohttp import web

from services.simulator.answers import ENDPOINTS, Exchange, answer
from services.simulator.clock import SimulatedClock
from services.simulator.faults import BadFault, FaultPlan, Reply, envelope, rate_limit_reply, read_faults
from services.simulator.limits import SlidingWindow
from services.simulator.spelling import candle_row, funding_row, settlement_row
from services.simulator.stats import Stats

FAR_MS = 10**15


def okx_app(exchange: Exchange, clock: SimulatedClock, plan: FaultPlan, stats: Stats, limits: bool) -> web.Application:
    """Build the REST application."""
    app = web.Application()
    app.add_routes(_okx_routes(exchange, clock, plan, stats, limits))
    app.add_routes(_control_routes(exchange, clock, plan, stats))
    app.router.add_route("*", "/{path:.*}", _not_found)
    return app


async def _not_found(_request: web.Request) -> web.Response:
    return web.Response(status=404, body=envelope("50404", "Not Found"), content_type="application/json")


def _okx_routes(
    exchange: Exchange, clock: SimulatedClock, plan: FaultPlan, stats: Stats, limits: bool
) -> list[web.RouteDef]:
    windows = {path: SlidingWindow(endpoint.limit, endpoint.seconds) for path, endpoint in ENDPOINTS.items()}
    refused = itertools.count()

    def is_allowed(request: web.Request) -> bool:
        counted_by = ENDPOINTS[request.path].counted_by
        key = (request.remote, request.query.get(counted_by) if counted_by else None)
        return not limits or windows[request.path].allows(key, time.monotonic())

    def reply(request: web.Request) -> Reply:
        now_ms = clock.now_ms()
        fault = plan.reply(request.path, request.query.get("instId"), now_ms, time.monotonic())
        if fault:
            return fault
        if not is_allowed(request):
            return rate_limit_reply(next(refused))
        given = answer(exchange, request.path, request.query, now_ms)
        return Reply(given.status, envelope(given.code, given.message, given.data), "application/json", given.code)

    async def handle(request: web.Request) -> web.Response:
        given = reply(request)
        stats.requests[request.path] += 1
        stats.codes[given.code] += 1
        stats.http_429 += given.status == web.HTTPTooManyRequests.status_code
        return web.Response(status=given.status, body=given.body, content_type=given.content_type)

    return [web.get(path, handle) for path in ENDPOINTS]


def _control_routes(exchange: Exchange, clock: SimulatedClock, plan: FaultPlan, stats: Stats) -> list[web.RouteDef]:
    """Truth and control, outside of OKX's paths: no limit, no fault."""
    market = exchange.market

    def window(request: web.Request) -> tuple[str, int, int]:
        inst_id = request.query.get("instId", "")
        if inst_id not in market.instruments:
            raise web.HTTPNotFound(text=f"no instrument is called {inst_id!r}")
        now_ms = clock.now_ms()
        begin = int(request.query.get("begin", 0))
        return inst_id, begin, min(int(request.query.get("end", now_ms + 1)), FAR_MS)

    async def tell_clock(_request: web.Request) -> web.Response:
        return _json(
            {
                "now_ms": clock.now_ms(),
                "start_ms": clock.start_ms,
                "end_ms": clock.end_ms,
                "speed": clock.speed,
                "ended": clock.ended(),
            }
        )

    async def true_candles(request: web.Request) -> web.Response:
        inst_id, begin, end = window(request)
        instrument = market.instruments[inst_id]
        return _json([candle_row(row, instrument, confirmed=True) for row in market.candles(inst_id, begin, end)])

    async def true_funding(request: web.Request) -> web.Response:
        inst_id, begin, end = window(request)
        instrument = market.instruments[inst_id]
        return _json([settlement_row(instrument, row) for row in market.settlements(inst_id, begin, end)])

    async def true_prediction(request: web.Request) -> web.Response:
        at_ms = int(request.query.get("at", clock.now_ms()))
        return _json(
            {
                inst_id: funding_row(instrument, market.funding_period(inst_id, at_ms), at_ms)["fundingRate"]
                for inst_id, instrument in market.instruments.items()
                if instrument.inst_type == "SWAP" and instrument.state(at_ms) == "live"
            }
        )

    async def arm(request: web.Request) -> web.Response:
        try:
            faults = read_faults(await request.read())
        except BadFault as error:
            return web.json_response({"error": str(error)}, status=400)
        for fault in faults:
            plan.add(fault, clock.now_ms())
        return _json({"armed": len(faults), "now_ms": clock.now_ms()})

    async def tell_faults(_request: web.Request) -> web.Response:
        return _json(list(plan.log))

    async def tell_stats(_request: web.Request) -> web.Response:
        return _json(stats.as_json())

    return [
        web.get("/sim/clock", tell_clock),
        web.get("/sim/truth/candles", true_candles),
        web.get("/sim/truth/funding", true_funding),
        web.get("/sim/truth/predicted", true_prediction),
        web.post("/sim/faults", arm),
        web.get("/sim/faults", tell_faults),
        web.get("/sim/stats", tell_stats),
    ]


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
