"""`python -m proofs.bench.frames`: what one frame of candles costs the collector, and what it costs cryptofeed alone.

Frames as OKX spells them go the way that they go in the service: from cryptofeed's callback through the connection, its
link and the intake, and a closed candle on to the event as the bus spells it. The peer is cryptofeed's own handler
with a callback that does nothing; the floor decodes the frame and makes numbers of its row. All of them run in turns,
in this process, and processor time counts.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import typer
from cryptofeed.defines import CANDLES
from cryptofeed.exchanges.okx import OKX
from cryptofeed.symbols import Symbols
from rich.console import Console
from rich.table import Table

from proofs.bench.figure import Beside, Figure, NotMeasuredError
from services.collector.channels.candles import CandleIntake
from services.collector.stream.link import Assignment, Feed, Link
from services.collector.stream.okx import OkxConnection, open_streams
from services.collector.tracking.universe import Reach, Tracker
from shared.clock import ExchangeClock, Sample
from shared.datasets.candle import Candle
from shared.datasets.registry import AnyEvent, encode
from shared.datasets.universe import Ranking
from shared.exchanges.okx.names import inst_id_of
from shared.grid import MINUTE, to_ms
from shared.ledger.replica import LedgerCopy
from shared.runtime.command import run
from shared.symbol import Symbol, parse_symbol

START = datetime(2026, 3, 1, tzinfo=UTC)

OURS, PEER, FLOOR = "the collector", "cryptofeed with an empty callback", "msgspec and float"

console = Console()

type Handler = Callable[[str], Awaitable[None]]


class Socket:
    """Takes requests, as an open connection does."""

    async def write(self, text: str) -> None:
        """Take a request."""


class Collector:
    """The way of a frame through the collector."""

    def __init__(self, symbols: Sequence[Symbol]) -> None:
        self.events: list[AnyEvent] = []
        self.encoded = 0
        self.closes = 0.0
        """The sum of the closes of all candles that were closed."""
        clock, here = ExchangeClock(), time.monotonic()
        for ago in (2.0, 1.0, 0.0):
            clock.add(Sample(here - ago, here - ago, (START + timedelta(days=1)).timestamp() - ago))
        tracker = Tracker(Reach(1), LedgerCopy(exchange="okx"))
        ranking = Ranking(
            exchange="okx",
            ranked_time=START,
            rank_by="raw",
            top_n=len(symbols),
            members=tuple(symbols),
            added=(),
            removed=(),
        )
        tracker.apply(ranking, START, {})
        intake = CandleIntake(tracker, clock, self.events.append, self._set_aside)
        stream = open_streams("wss://127.0.0.1:1", ca_file=None, now=clock.latest)["candles"]
        feed = Feed(
            stream=stream,
            on_row=intake.take,
            on_unreadable=self._set_aside,
            is_expected_silent=lambda _: False,
            hold_seconds=1.0,
        )
        self._link = Link(feed, Assignment(0, set(symbols)))
        self._symbols = symbols

    @staticmethod
    def _set_aside(origin: str, payload: object, reason: str) -> None:
        raise AssertionError(f"{origin}: {reason}: {payload}")

    async def subscribe(self) -> None:
        """Subscribe to everything, on a connection that is open."""
        connection = self._connection()
        connection.opened(Socket())
        self._link.liveness.ask(self._symbols, time.monotonic())
        await connection.send("subscribe", self._symbols)

    def _connection(self) -> OkxConnection:
        assert isinstance(self._link.connection, OkxConnection)  # noqa: S101 - it is OKX's stream
        return self._link.connection

    def handler(self) -> Handler:
        """Return what cryptofeed's callback does with a frame, up to the event as the bus spells it."""
        receive, events = self._connection().receive, self.events

        async def handle(frame: str) -> None:
            receive(frame)
            for event in events:
                encode(event)
                self.encoded += 1
                self.closes += event.close if isinstance(event, Candle) else 0.0
            events.clear()

        return handle


class Bare(OKX):  # type: ignore[misc]
    """cryptofeed's OKX with a callback that does nothing, and names as they are."""

    def __init__(self) -> None:
        Symbols.set(OKX.id, {}, {})
        super().__init__(
            symbols=["none"],
            channels=[CANDLES],
            candle_interval="1m",
            candle_closed_only=False,
            callbacks={CANDLES: self._nothing},
            config={"log": {"disabled": True}},
        )

    async def _nothing(self, candle: Any, received: float) -> None:
        """Take a candle."""

    def std_symbol_to_exchange_symbol(self, symbol: Any) -> str:
        """Keep instIds."""
        return str(symbol)

    def exchange_symbol_to_std_symbol(self, symbol: str) -> str:
        """Keep instIds."""
        return symbol

    def handler(self) -> Handler:
        """Return cryptofeed's handler of frames."""

        async def handle(frame: str) -> None:
            await self.message_handler(frame, None, 0.0)

        return handle


class _Subject(msgspec.Struct):
    channel: str
    instId: str  # noqa: N815 - as OKX spells it


class _Frame(msgspec.Struct):
    arg: _Subject
    data: list[list[str]]


class Decoded:
    """The least that there is to do with a frame: decode it, and make numbers of what it says."""

    def __init__(self) -> None:
        self.closes = 0.0

    def handler(self) -> Handler:
        """Return what does it."""
        decode = msgspec.json.Decoder(_Frame).decode

        async def handle(frame: str) -> None:
            for row in decode(frame).data:
                numbers = [float(text) for text in row]
                if numbers[-1]:
                    self.closes += numbers[4]

        return handle


def frames_of(symbols: Sequence[Symbol], minute: int, confirm: str) -> list[str]:
    """Return a frame per symbol, as OKX spells it."""
    opened = to_ms(START + minute * MINUTE)
    return [
        f'{{"arg":{{"channel":"candle1m","instId":"{inst_id_of(symbol)}"}},"data":[["{opened}","8533.02","8553.74",'
        f'"8527.17","8548.{number}","45247","529.5858061","5529585.{minute}061","{confirm}"]]}}'
        for number, symbol in enumerate(symbols)
    ]


async def microseconds(handle: Handler, frames: Sequence[str]) -> float:
    """Return the processor time of a frame."""
    began = time.process_time()
    for frame in frames:
        await handle(frame)
    return 1e6 * (time.process_time() - began) / len(frames)


async def measure(symbols: int, minutes: int, forming: int) -> dict[str, dict[str, list[float]]]:
    """Return handler → kind of frame → microseconds of a frame, in each minute. Raises `NotMeasuredError`."""
    names = [parse_symbol(f"COIN{number}_USDT") for number in range(symbols)]
    collector, bare, decoded = Collector(names), Bare(), Decoded()
    await collector.subscribe()
    handlers = {OURS: collector.handler(), PEER: bare.handler(), FLOOR: decoded.handler()}
    found: dict[str, dict[str, list[float]]] = {name: {"forming": [], "closed": []} for name in handlers}
    for minute in range(minutes):
        for kind, confirm in [*[("forming", "0")] * forming, ("closed", "1")]:
            frames = frames_of(names, minute, confirm)
            for name, handle in handlers.items():
                found[name][kind].append(await microseconds(handle, frames))
    if collector.encoded != symbols * minutes:
        raise NotMeasuredError(f"{symbols * minutes} candles came in, {collector.encoded} went out")
    if collector.closes != decoded.closes:
        raise NotMeasuredError(f"closes add up to {collector.closes} of events, to {decoded.closes} of frames")
    return found


def figures(symbols: int, minutes: int, forming: int = 5) -> list[Figure]:
    """Measure a frame of each kind. Raises `NotMeasuredError`."""
    found = asyncio.run(measure(symbols, minutes, forming))

    def figure(kind: str, work: str) -> Figure:
        ours, peer, floor = (statistics.median(found[name][kind]) for name in (OURS, PEER, FLOOR))
        return Figure(work, ours, "us of CPU", Beside(peer, PEER), Beside(floor, FLOOR))

    return [
        figure("closed", "a frame that closes a candle, to the event as Redis gets it"),
        figure("forming", "a frame of a candle that is not closed"),
    ]


def main(
    symbols: Annotated[int, typer.Option(min=1, help="How many symbols send frames")] = 500,
    minutes: Annotated[int, typer.Option(min=1, help="Minutes of frames, one after the other")] = 30,
    forming: Annotated[int, typer.Option(min=1, help="Frames of a candle before it is closed")] = 5,
) -> None:
    """Measure the processor time of a frame, from cryptofeed's callback to the encoded event."""
    found = asyncio.run(measure(symbols, minutes, forming))
    table = Table(title=f"{symbols} symbols, {minutes} minutes: microseconds of a frame", title_justify="left")
    for name in ("handler", "frame", "median", "least"):
        table.add_column(name, justify="left" if name in {"handler", "frame"} else "right")
    for handler, kinds in found.items():
        for kind, times in kinds.items():
            table.add_row(handler, kind, f"{statistics.median(times):.1f}", f"{min(times):.1f}")
    console.print(table)


if __name__ == "__main__":
    run(main)
