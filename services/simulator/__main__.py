"""An OKX that runs offline: replays a recording, or generates a market, behind the exchange's own protocol."""

import asyncio
import contextlib
import json
import logging
import signal
import ssl
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from aiohttp import web

from services.simulator.answers import Exchange
from services.simulator.clock import SimulatedClock
from services.simulator.faults import BadFaultError, FaultPlan, read_faults
from services.simulator.market import HOUR_MS, MINUTE_MS, Market
from services.simulator.replay import ReplayMarket, UnusableRecordingError, load_recording
from services.simulator.rest import rest_app
from services.simulator.sockets import Sockets
from services.simulator.stats import Stats
from services.simulator.synthetic import EARLIEST_START_MS, SyntheticMarket
from services.simulator.tls import server_context
from shared.log import setup_logging

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


@app.command(help=__doc__)
def main(
    *,
    data: Annotated[
        Path | None, typer.Option(help="Replay this folder: candles_1m.parquet and funding.parquet.")
    ] = None,
    symbols: Annotated[int | None, typer.Option(min=1, help="Generate this many live linear crypto swaps.")] = None,
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
    faults: Annotated[Path | None, typer.Option(help="A JSON file with scripted faults.")] = None,
    limits: Annotated[bool, typer.Option(help="Enforce the REST rate limits.")] = True,
    history_delay: Annotated[
        float, typer.Option(min=0, help="Simulated seconds until a settlement shows in funding-rate-history.")
    ] = 2.0,
    delist: Annotated[
        bool, typer.Option(help="Let an instrument whose recording ends early leave the exchange.")
    ] = True,
) -> None:
    """Read the arguments, build the market, serve it until told to stop."""
    setup_logging("simulator")
    try:
        market, clock = _market(data, symbols, seed, start, speed, delist=delist)
        plan = FaultPlan()
        for fault in read_faults(faults.read_bytes()) if faults else []:
            plan.add(fault, clock.now_ms())
        context = server_context(ca_file, tuple(tls_name or ()))
        exchange = Exchange(market, int(history_delay * 1000))
        ports = Ports(host, rest_port, ws_port)
        asyncio.run(_serve(exchange, clock, plan, context, ports, limits=limits, ca_file=ca_file))
    except (UnusableRecordingError, UnusableArgumentsError, BadFaultError, OSError) as error:
        typer.echo(f"simulator: {error}", err=True)
        raise typer.Exit(2) from error


def _market(
    data: Path | None, symbols: int | None, seed: int, start: str | None, speed: float, *, delist: bool
) -> tuple[Market, SimulatedClock]:
    if (data is None) == (symbols is None):
        raise UnusableArgumentsError("give either --data FOLDER (replay) or --symbols N (generate)")
    start_ms = _instant_ms(start) if start else None
    if data is not None:
        recording = load_recording(data, delist=delist)
        end_ms = recording.last_ms + LAST_CONFIRM_MS
        return recording, SimulatedClock(_replay_start(recording, start_ms, end_ms), speed, end_ms)
    start_ms = int(time.time() * 1000) if start_ms is None else start_ms
    if start_ms < EARLIEST_START_MS:
        raise UnusableArgumentsError(
            "a generated market has all its instruments from 2020-01-01 on: use a later --start"
        )
    return SyntheticMarket(symbols or 1, seed, start_ms), SimulatedClock(start_ms, speed)


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


async def _serve(
    exchange: Exchange,
    clock: SimulatedClock,
    plan: FaultPlan,
    context: ssl.SSLContext,
    ports: Ports,
    *,
    limits: bool,
    ca_file: Path | None,
) -> None:
    """Open both ports, say so on stdout, pump until SIGTERM or SIGINT."""
    stats = Stats()
    sockets = Sockets(exchange.market, clock, plan, stats)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        rest = rest_app(exchange, clock, plan, stats, limits=limits)
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
