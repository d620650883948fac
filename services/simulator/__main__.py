"""An OKX that runs offline: replays a recording, or generates a market, behind the exchange's own protocol."""

import asyncio
import contextlib
import json
import logging
import re
import signal
import ssl
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TextIO

import msgspec
import typer
from aiohttp import web

from services.simulator.control import Control
from services.simulator.engine.clock import SimulatedClock
from services.simulator.engine.life import BadChangeError, LivingMarket, read_changes
from services.simulator.engine.market import HOUR_MS, MINUTE_MS, Market
from services.simulator.engine.replay import ReplayMarket, UnusableRecordingError, load_recording
from services.simulator.engine.synthetic import EARLIEST_START_MS, SWAP_NAME, SyntheticMarket
from services.simulator.faults.chaos import Chaos, Recipe
from services.simulator.faults.kinds import KINDS, BadFaultError, read_faults
from services.simulator.faults.plan import FaultPlan
from services.simulator.okx.answers import Exchange
from services.simulator.okx.rest import rest_app
from services.simulator.okx.sockets import Sockets
from services.simulator.stats import Stats
from services.simulator.tls import server_context
from shared.runtime.log import setup_logging

log = logging.getLogger("simulator")

REPLAYED_BY_DEFAULT_MS = 26 * HOUR_MS
"""How much of a recording is played unless --start says otherwise; the rest is history to ask for over REST."""
LAST_CONFIRM_MS = MINUTE_MS + 5_000
"""From the last recorded open time to the end of the clock: the minute itself, and time for its confirm."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class UnusableArgumentsError(Exception):
    """Arguments that contradict each other or the data."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where to listen; 0 takes any free port."""

    host: str
    rest: int
    ws: int


@dataclass(frozen=True, slots=True)
class World:
    """Everything that is served: the exchange, its time, and what goes wrong."""

    exchange: Exchange
    market: LivingMarket
    clock: SimulatedClock
    plan: FaultPlan
    chaos: Chaos | None


@app.command(help=__doc__)
def main(
    *,
    data: Annotated[
        Path | None, typer.Option(help="Replay this folder: candles_1m.parquet and funding.parquet.")
    ] = None,
    symbols: Annotated[int | None, typer.Option(min=1, help="Generate this many live linear crypto swaps.")] = None,
    names: Annotated[
        Path | None, typer.Option(help="A JSON file with instIds that the generated market has beside the others.")
    ] = None,
    only_xperps: Annotated[
        bool,
        typer.Option(
            "--only-xperps", help="Generate X-Perps, which are FUTURES, and no swap: what accounts in Europe see."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="The generated market is a function of this.")] = 1,
    start: Annotated[
        str | None,
        typer.Option(help="Simulated start, ISO, UTC. Default: 26 h before a recording's end; now if generated."),
    ] = None,
    speed: Annotated[float, typer.Option(min=0.001, help="Simulated seconds a second.")] = 1.0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    rest_port: Annotated[int, typer.Option(help="REST port; 0: any free one.")] = 8911,
    ws_port: Annotated[int, typer.Option(help="WebSocket port; 0: any free one.")] = 8912,
    ca_file: Annotated[
        Path | None, typer.Option(help="Write the CA certificate that clients must trust here (keys beside it).")
    ] = None,
    tls_name: Annotated[list[str] | None, typer.Option(help="One more name the certificate is valid for.")] = None,
    faults: Annotated[
        Path | None, typer.Option(help=f"A JSON file with scripted faults. Kinds: {', '.join(KINDS)}.")
    ] = None,
    fault_log: Annotated[
        Path | None, typer.Option(help="Append what the faults did to this file, one JSON object a line.")
    ] = None,
    events: Annotated[
        Path | None,
        typer.Option(
            help="A JSON file with changes in the life of instruments: "
            "list (also again), suspend, resume, delist, tick, interval, rebase."
        ),
    ] = None,
    chaos: Annotated[
        int | None, typer.Option(help="Faults of all kinds, one after another; a function of this seed.")
    ] = None,
    rate: Annotated[float, typer.Option(min=0.001, help="Faults of the chaos a simulated hour.")] = 30.0,
    chaos_wall: Annotated[
        bool, typer.Option("--chaos-wall", help="Count --rate by minutes of wall time: better when time runs fast.")
    ] = False,
    chaos_without: Annotated[
        list[str] | None, typer.Option(help="One more kind of fault that the chaos leaves out.")
    ] = None,
    limits: Annotated[bool, typer.Option(help="Enforce the REST rate limits.")] = True,
    history_delay: Annotated[
        float, typer.Option(min=0, help="Simulated seconds until a settlement shows in funding-rate-history.")
    ] = 2.0,
    delist: Annotated[
        bool, typer.Option(help="Let an instrument whose recording ends early leave the exchange.")
    ] = True,
) -> None:
    """Read the arguments, build the market, serve it until it is stopped."""
    setup_logging("simulator")
    try:
        with contextlib.ExitStack() as stack:
            log_file = stack.enter_context(fault_log.open("a", encoding="utf-8")) if fault_log else None
            sorts = _Sorts(names=_names(names), delist=delist, only_xperps=only_xperps)
            base, clock = _market(data, symbols, seed, start, speed, sorts=sorts)
            plan, market = _plan(base, clock, faults, events, log_file)
            recipe = _recipe(market, clock, chaos, rate, chaos_without or (), wall=chaos_wall)
            exchange = Exchange(market, int(history_delay * 1000), plan.windows, plan.shown)
            world = World(exchange, market, clock, plan, Chaos(recipe, speed, clock.start_ms) if recipe else None)
            context = server_context(ca_file, tuple(tls_name or ()))
            asyncio.run(_serve(world, context, Ports(host, rest_port, ws_port), limits=limits, ca_file=ca_file))
    except (UnusableRecordingError, UnusableArgumentsError, BadFaultError, BadChangeError, OSError) as error:
        typer.echo(f"simulator: {error}", err=True)
        raise typer.Exit(2) from error


def _plan(
    base: Market, clock: SimulatedClock, faults: Path | None, events: Path | None, log_file: TextIO | None
) -> tuple[FaultPlan, LivingMarket]:
    plan = FaultPlan(clock.speed, log_file)
    market = LivingMarket(base, plan.windows)
    for change in read_changes(events.read_bytes()) if events else ():
        market.change(change)
    for fault in read_faults(faults.read_bytes(), market.instruments) if faults else ():
        plan.add(fault, clock.start_ms)
    return plan, market


def _recipe(
    market: Market, clock: SimulatedClock, seed: int | None, rate: float, left_out: Sequence[str], *, wall: bool
) -> Recipe | None:
    if seed is None:
        if wall or left_out:
            raise UnusableArgumentsError("--chaos-wall and --chaos-without belong to --chaos SEED: give it, too")
        return None
    inst_ids = tuple(
        instrument.inst_id
        for instrument in market.instruments.values()
        if instrument.state(clock.start_ms) == "live" and instrument.inst_type == "SWAP" and instrument.category == "1"
    )
    if not inst_ids:
        raise UnusableArgumentsError("--chaos has nothing to act on: no crypto swap is live at the start")
    return Recipe(seed, rate, "wall minute" if wall else "hour", inst_ids, _without(left_out))


def _without(left_out: Sequence[str]) -> tuple[str, ...]:
    if strange := set(left_out) - KINDS.keys():
        raise UnusableArgumentsError(f"no fault is called {min(strange)!r}; there are {', '.join(KINDS)}")
    kinds = tuple(kind for kind in KINDS if kind not in left_out)
    if not kinds:
        raise UnusableArgumentsError("--chaos-without leaves no kind: leave --chaos out instead")
    return kinds


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sorts:
    """Which instruments there are beside the usual ones, or instead of them."""

    names: list[str]
    only_xperps: bool
    delist: bool


def _names(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        names = msgspec.json.decode(path.read_bytes(), type=list[str])
    except (OSError, msgspec.MsgspecError) as error:
        raise UnusableArgumentsError(f"--names {path}: a JSON array of instIds is wanted: {error}") from error
    for name in names:
        if not re.fullmatch(SWAP_NAME, name):
            raise UnusableArgumentsError(f"--names {path}: a swap is called like NEW-USDT-SWAP, not {name!r}")
    return names


def _market(
    data: Path | None, symbols: int | None, seed: int, start: str | None, speed: float, *, sorts: _Sorts
) -> tuple[Market, SimulatedClock]:
    if (data is None) == (symbols is None):
        raise UnusableArgumentsError("give either --data FOLDER (replay) or --symbols N (generate)")
    if sorts.names and sorts.only_xperps:
        raise UnusableArgumentsError("--names are those of swaps, and --only-xperps has none: leave one of them out")
    start_ms = _instant_ms(start) if start else None
    if data is not None:
        recording = load_recording(data, delist=sorts.delist)
        end_ms = recording.last_ms + LAST_CONFIRM_MS
        return recording, SimulatedClock(_replay_start(recording, start_ms, end_ms), speed, end_ms)
    start_ms = int(time.time() * 1000) if start_ms is None else start_ms
    if start_ms < EARLIEST_START_MS:
        raise UnusableArgumentsError(
            "a generated market has all its instruments from 2020-01-01 on: use a later --start"
        )
    market = SyntheticMarket(symbols or 1, seed, start_ms, sorts.names, only_xperps=sorts.only_xperps)
    return market, SimulatedClock(start_ms, speed)


def _replay_start(recording: ReplayMarket, start_ms: int | None, end_ms: int) -> int:
    earliest_ms = recording.first_ms + MINUTE_MS
    if start_ms is None:
        return max(earliest_ms, recording.last_ms + MINUTE_MS - REPLAYED_BY_DEFAULT_MS)
    if not recording.first_ms <= start_ms < end_ms:
        raise UnusableArgumentsError(
            "--start lies outside of the recording, which holds "
            f"{_iso(recording.first_ms)} to {_iso(recording.last_ms)}"
        )
    return start_ms


def _instant_ms(text: str) -> int:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise UnusableArgumentsError(f"--start is not an ISO time: {text!r}") from error
    return int((instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp() * 1000)


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat()


async def _serve(world: World, context: ssl.SSLContext, ports: Ports, *, limits: bool, ca_file: Path | None) -> None:
    """Open both ports, say so on stdout, pump until SIGTERM or SIGINT."""
    stats, clock, plan = Stats(), world.clock, world.plan
    sockets = Sockets(world.market, clock, plan, stats, world.chaos)
    control = Control(world.market, clock, plan, stats, world.chaos)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        rest = rest_app(world.exchange, clock, plan, stats, control.routes(), limits=limits)
        rest_port = await _listen(stack, rest, ports.host, ports.rest, context)
        ws_port = await _listen(stack, sockets.app(), ports.host, ports.ws, context)
        clock.restart()
        _announce(ports.host, rest_port, ws_port, ca_file, clock)
        pump = asyncio.create_task(sockets.pump())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({pump, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if pump.done():
            pump.result()
        pump.cancel()
    log.info("stopped at %s", _iso(clock.now_ms()))


async def _listen(
    stack: contextlib.AsyncExitStack, application: web.Application, host: str, port: int, context: ssl.SSLContext
) -> int:
    """Start a server and return the port it got."""
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, host, port, ssl_context=context).start()
    except OSError as error:
        raise UnusableArgumentsError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another port"
        ) from error
    return int(runner.addresses[0][1])


def _announce(host: str, rest_port: int, ws_port: int, ca_file: Path | None, clock: SimulatedClock) -> None:
    """Print one machine-readable line: whoever started the process waits for it."""
    ready = {
        "event": "ready",
        "host": host,
        "rest_port": rest_port,
        "ws_port": ws_port,
        "ca_file": str(ca_file) if ca_file else None,
        "start_ms": clock.start_ms,
        "end_ms": clock.end_ms,
        "speed": clock.speed,
    }
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    app()
