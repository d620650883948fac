"""The REST port: OKX's paths with their limits and faults."""

import asyncio
import itertools
import math
import time
from collections.abc import Iterable

from aiohttp import web

from services.simulator.engine.clock import SimulatedClock
from services.simulator.faults.effects import envelope, rate_limit_reply
from services.simulator.faults.fault import Asked, Reply
from services.simulator.faults.plan import FaultPlan
from services.simulator.okx.answers import ENDPOINTS, Exchange, answer
from services.simulator.okx.limits import SlidingWindow
from services.simulator.stats import Stats

GONE_TICK_SECONDS = 0.1
"""How soon it is noticed that a client has given up."""


def rest_app(
    exchange: Exchange,
    clock: SimulatedClock,
    plan: FaultPlan,
    stats: Stats,
    beside: Iterable[web.RouteDef],
    *,
    limits: bool,
) -> web.Application:
    """Build the REST application. beside: routes that are none of OKX's."""
    app = web.Application()
    app.add_routes(_okx_routes(exchange, clock, plan, stats, limits=limits))
    app.add_routes(beside)
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

    def real(request: web.Request, asked: Asked) -> Reply:
        if not is_allowed(request):
            return rate_limit_reply(next(refused))
        params = plan.params(asked, request.query, time.monotonic())
        given = answer(exchange, asked.endpoint, params, asked.now_ms)
        return Reply(given.status, envelope(given.code, given.message, given.data), "application/json", given.code)

    async def handle(request: web.Request) -> web.Response:
        now_ms = clock.now_ms()
        asked = Asked(request.path, request.query.get("instId"), now_ms)
        given = plan.reply(asked, real(request, asked), time.monotonic())
        stats.requests[request.path] += 1
        stats.codes[given.code] += 1
        stats.http_429 += given.status == web.HTTPTooManyRequests.status_code
        await _wait(request, given.after)
        return web.Response(
            status=given.status, body=given.body, content_type=given.content_type, headers=dict(given.headers)
        )

    return [web.get(path, handle) for path in ENDPOINTS]


async def _wait(request: web.Request, seconds: float) -> None:
    """Let a client wait, for ever if need be: until it gives up."""
    if not math.isinf(seconds):
        await asyncio.sleep(seconds)
        return
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 aiohttp has no event for it
        await asyncio.sleep(GONE_TICK_SECONDS)
