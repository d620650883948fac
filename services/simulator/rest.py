"""The REST port: OKX's paths with their limits and faults."""

import itertools
import time

from aiohttp import web

from services.simulator.answers import ENDPOINTS, Exchange, answer
from services.simulator.clock import SimulatedClock
from services.simulator.control import Control
from services.simulator.faults import FaultPlan, Reply, envelope, rate_limit_reply
from services.simulator.limits import SlidingWindow
from services.simulator.stats import Stats


def rest_app(
    exchange: Exchange, clock: SimulatedClock, plan: FaultPlan, stats: Stats, *, limits: bool
) -> web.Application:
    """Build the REST application."""
    app = web.Application()
    app.add_routes(_okx_routes(exchange, clock, plan, stats, limits=limits))
    app.add_routes(Control(exchange.market, clock, plan, stats).routes())
    app.router.add_route("*", "/{path:.*}", _not_found)
    return app


async def _not_found(_request: web.Request) -> web.Response:
    return web.Response(status=404, body=envelope("50404", "Not Found"), content_type="application/json")


def _okx_routes(
    exchange: Exchange, clock: SimulatedClock, plan: FaultPlan, stats: Stats, *, limits: bool
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
