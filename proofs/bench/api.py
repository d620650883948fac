"""`python -m proofs.bench.api`: how many questions the api answers, and how fast, while a large universe is ingested.

The system follows a synthetic market at real speed; a year of ledger lies on the disk behind it. First the year's gaps
are asked for: when nothing has read it, and when the api has just started and read ahead. Then some connections ask
one question after the other, each as soon as the answer to its last one is there. The client is this process, on the
same machine.
"""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from cli.stack import Stack, StackError, clear, end_on_signals
from proofs.bench.figure import Beside, Figure, NotMeasuredError
from proofs.bench.ledger import make
from proofs.bench.load import processor_seconds, service_pid, wait_until_subscribed
from shared.runtime.command import run

FOLDER = Path(".run/api")
LEAST = "/health"
"""The question that asks the api for least."""
_READY_SECONDS = 60.0
_OF_THE_WRITER = 3
"""Days before today whose ledger the running writer looks after: older ones lie on the disk alone."""
_AHEAD_SECONDS = 20.0
"""After this time the api has read a year of ledger."""

console = Console()


@dataclass
class Answers:
    """What came back."""

    seconds: list[float] = field(default_factory=list)
    """How long each answer took."""
    codes: dict[int, int] = field(default_factory=dict)
    """HTTP status → how many had it."""
    bytes: int = 0
    """Of the last body."""
    processor_seconds: float = 0.0
    """Of the api, meanwhile."""
    took: float = 0.0

    @property
    def rate(self) -> float:
        """Return answers a second."""
        return len(self.seconds) / self.took

    def milliseconds(self, share: float) -> float:
        """Return within which time a share of the answers came."""
        return 1000 * float(np.quantile(self.seconds, share))


class Client:
    """One connection that asks one question after the other: an HTTP client whose own cost is small."""

    def __init__(self, address: str) -> None:
        self._host, self._port = urlsplit(address).hostname or "", urlsplit(address).port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=2**24)
        reader, writer = self._streams
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.split("content-length:", 1)[1].split("\r\n", 1)[0])
        return int(head.split(" ", 2)[1]), await reader.readexactly(length)

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()


async def ask(address: str, path: str, connections: int, seconds: float) -> Answers:
    """Ask a question over and over for some time, on some connections at once."""
    answers, deadline = Answers(), time.perf_counter() + seconds

    async def one() -> None:
        client = Client(address)
        while (began := time.perf_counter()) < deadline:
            code, body = await client.get(path)
            answers.seconds.append(time.perf_counter() - began)
            answers.codes[code] = answers.codes.get(code, 0) + 1
            answers.bytes = len(body)
        client.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    answers.took = time.perf_counter() - began
    return answers


def measure(stack: Stack, path: str, connections: int, seconds: float) -> Answers:
    """Ask a question, and read from the kernel what the api used for it. No time: it is asked once."""
    pid = service_pid(stack.pid("api"))
    before = processor_seconds(pid)
    answers = asyncio.run(ask(stack.api_url, path, connections, seconds))
    answers.processor_seconds = processor_seconds(pid) - before
    return answers


def once(stack: Stack, path: str) -> Answers:
    """Ask a question once."""

    async def one() -> Answers:
        client, began = Client(stack.api_url), time.perf_counter()
        code, body = await client.get(path)
        took = time.perf_counter() - began
        client.close()
        return Answers([took], {code: 1}, len(body), took=took)

    pid = service_pid(stack.pid("api"))
    before = processor_seconds(pid)
    answers = asyncio.run(one())
    answers.processor_seconds = processor_seconds(pid) - before
    return answers


def wait_until_ready(stack: Stack) -> None:
    """Wait until the api has the ledger. Raises `StackError`."""
    deadline = time.monotonic() + _READY_SECONDS
    while not stack.ask_api("/ledger")["symbols"]:
        if time.monotonic() > deadline:
            raise StackError("the ledger has no symbols")
        time.sleep(1.0)


def restart(stack: Stack) -> None:
    """Start the api again, and leave it the time to read ahead."""
    stack.stop_program("api")
    stack.start_program("api")
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            stack.ask_api("/health")
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise StackError(f"the api does not answer: {error}") from error
            time.sleep(0.2)
    time.sleep(_AHEAD_SECONDS)


def show(found: dict[str, Answers], title: str) -> None:
    """Print a line per question."""
    table = Table(title=title, title_justify="left")
    for name in ("question", "answers a second", "p50 ms", "p99 ms", "api CPU ms", "kB", "status"):
        table.add_column(name, justify="left" if name == "question" else "right")
    for path, answers in found.items():
        count = len(answers.seconds)
        table.add_row(
            path,
            f"{answers.rate:,.1f}",
            f"{answers.milliseconds(0.5):,.0f}",
            f"{answers.milliseconds(0.99):,.0f}",
            f"{1000 * answers.processor_seconds / count:,.2f}",
            f"{answers.bytes / 1000:,.1f}",
            " ".join(f"{code}: {number}" for code, number in sorted(answers.codes.items())),
        )
    console.print(table)


def measure_all(symbols: int, days: int, connections: int, seconds: float, folder: Path) -> dict[str, Answers]:
    """Ask every question of a running system; return question → answers. Raises `StackError`."""
    end_on_signals()
    clear(folder)
    end = datetime.now(UTC).date() - timedelta(days=_OF_THE_WRITER)
    first = end - timedelta(days=days)
    year = f"begin={first}&end={end}"
    ledger, gaps = "/ledger, all days", "/gaps, all days"
    settings = {"TOP_N": str(symbols), "BACKFILL_DAYS": "0", "RETENTION_DAYS": str(_OF_THE_WRITER - 1)}
    paths = {path: path for path in (LEAST, "/status", "/lag", "/metrics", "/completeness", "/ledger")}
    paths |= {ledger: f"/ledger?{year}", gaps: f"/gaps?{year}"}
    stack = Stack(folder, settings, simulator=["--symbols", str(symbols), "--seed", "1"])
    with stack:
        wait_until_subscribed(stack, symbols)
        wait_until_ready(stack)
        # Not earlier: the writer, which finds no rows of these days, would call every settlement missing.
        make(stack.data_dir, days, symbols, seed=1, first=first)
        found = {f"{gaps}, never read before": once(stack, paths[gaps])}
        restart(stack)
        found[f"{gaps}, {_AHEAD_SECONDS:g} s after a start"] = once(stack, paths[gaps])
        for question, path in paths.items():
            found[question] = measure(stack, path, connections, seconds)
    return found


def figures(symbols: int, days: int, seconds: float, connections: int = 16) -> list[Figure]:
    """Measure the answers to every question. Raises `NotMeasuredError` where one is not answered with 200."""
    try:
        found = measure_all(symbols, days, connections, seconds, FOLDER)
    except StackError as error:
        raise NotMeasuredError(str(error)) from error
    for path, answers in found.items():
        if set(answers.codes) != {HTTPStatus.OK}:
            raise NotMeasuredError(f"{path}: answers by status are {answers.codes}")
    name, floor = f"{symbols} symbols ingested, {days} days of ledger", found[LEAST]
    least = Beside(floor.rate, LEAST)
    return [
        Figure(f"{name}: {path}, one answer", answers.took, "s")
        if len(answers.seconds) == 1
        else Figure(f"{name}: {path}", answers.rate, "answers a second", floor=least, is_rate=True)
        for path, answers in found.items()
        if path != LEAST
    ]


def main(
    *,
    symbols: Annotated[int, typer.Option(min=1, help="Size of the synthetic market, all of it in the universe")] = 500,
    days: Annotated[int, typer.Option(min=1, max=360, help="Days of ledger on the disk")] = 360,
    connections: Annotated[int, typer.Option(min=1, help="How many ask at once")] = 16,
    seconds: Annotated[float, typer.Option(min=1, help="How long each question is asked")] = 10.0,
    folder: Annotated[Path, typer.Option(help="Where the run keeps its data and logs")] = FOLDER,
) -> None:
    """Measure the answers a second, their delay and the processor time of each question."""
    try:
        found = measure_all(symbols, days, connections, seconds, folder)
    except StackError as error:
        console.print(f"not measured: {error}", markup=False, soft_wrap=True)
        raise SystemExit(2) from None
    show(found, f"{symbols} symbols, {days} days of ledger, {connections} connections; {datetime.now(UTC):%F}")


if __name__ == "__main__":
    run(main)
