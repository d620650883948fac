"""`python -m services.writer.dead_letters`: look at inputs that made no sense, replay them after a fix, drop them.

What a letter holds depends on its origin. An entry of a stream is decoded again; a raw row of the exchange is read
again by its package. What makes sense now is published to its stream and removed, in one transaction; what does not
stays.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from services.writer.disk.retention import is_retired
from services.writer.settings import WriterSettings
from shared.bus.bus import Bus
from shared.bus.connection import BusError
from shared.bus.dead_letters import DeadLetter
from shared.bus.streams import DEAD_LETTER
from shared.datasets.channels import CHANNELS
from shared.datasets.registry import AnyEvent, UndecodableError, decode
from shared.exchanges.base import RowError
from shared.exchanges.registry import exchange_of, part_of
from shared.runtime.exit_codes import ExitCode
from shared.runtime.settings import read_settings

_PAGE = 200
"""Letters that are replayed in one transaction."""
_PARTS = 3
"""Of the origin of a stream's entry: service, stream, id."""


class StillBadError(Exception):
    """A letter that makes no sense still; the text says why."""


@dataclass(frozen=True)
class Now:
    """What a replay needs to know of now."""

    exchange_time: datetime
    retention_days: int

    @property
    def today(self) -> date:
        """Return the UTC day at the exchange."""
        return self.exchange_time.astimezone(UTC).date()


# --- What a letter says today. Pure.


def events_of(letter: DeadLetter, now: Now) -> list[AnyEvent]:
    """Read a letter with the code of today. Raises `StillBadError`."""
    origin = letter.origin.split(":")
    try:
        payload = msgspec.json.decode(letter.payload)
    except ValueError as error:
        raise StillBadError(f"the payload is no JSON, or was cut ({error})") from error
    try:
        events = [_entry(payload)] if len(origin) == _PARTS else _rows(origin, payload, letter, now)
    except (UndecodableError, RowError) as error:
        raise StillBadError(str(error)) from error
    except (ValueError, TypeError, LookupError, OverflowError) as error:  # far from any row
        raise StillBadError(f"it has not the shape of a row ({type(error).__name__})") from error
    if any(is_retired(event, now.today, now.retention_days) for event in events):
        raise StillBadError(f"older than RETENTION_DAYS={now.retention_days}: the writer would set it aside again")
    return events


def _entry(payload: Any) -> AnyEvent:
    if not isinstance(payload, dict) or not all(isinstance(value, str) for value in payload.values()):
        raise StillBadError("the payload is no entry of a stream")
    return decode(payload)


def _rows(origin: list[str], payload: Any, letter: DeadLetter, now: Now) -> list[AnyEvent]:
    """Read rows of an exchange again, by its own package."""
    exchange = exchange_of("collector", origin[0])
    source = origin[1] if len(origin) > 1 else ""
    if exchange is None or source not in _ROWS:
        raise StillBadError(f"it is not known how to read what {letter.origin or 'an unknown service'} has set aside")
    read = part_of(exchange, "client").reread
    events: list[AnyEvent] = read(source, payload, received=_received(letter), now=now.exchange_time)
    if not events:
        raise StillBadError("there is no closed candle in it")
    return events


def _received(letter: DeadLetter) -> datetime:
    """Return when the row came: what the exchange has said of it since is newer, and wins."""
    try:
        at = datetime.fromisoformat(letter.at)
    except ValueError as error:
        raise StillBadError(f"it does not say when it was set aside: {letter.at!r}") from error
    if at.tzinfo is None:
        raise StillBadError(f"it does not say in which time zone it was set aside: {letter.at!r}")
    return at.astimezone(UTC)


_ROWS = {letter for channel in CHANNELS.values() for letter in channel.letters}
"""What the letters of a collector may be rows of."""


@dataclass(frozen=True)
class Choice:
    """Which letters are meant; what is left empty does not matter."""

    origin: str = ""
    """How the origin begins."""
    ids: Collection[str] = ()

    def __contains__(self, letter: DeadLetter) -> bool:
        return letter.origin.startswith(self.origin) and (not self.ids or letter.id in self.ids)


@dataclass
class Outcome:
    """What became of some letters."""

    replayed: int = 0
    events: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    """Reason → letters that stay."""


def _in_short(reason: str) -> str:
    """Cut the row out of a reason, so that the same trouble of many rows is one."""
    return reason.split(": [", 1)[0].split(" in {", 1)[0].split(": {", 1)[0]


# --- Doing it. I/O.


async def replay(bus: Bus, choice: Choice, now: Now, progress: Progress, *, dry_run: bool = False) -> Outcome:
    """Publish what makes sense by now and remove it; leave the rest. Raises `BusError`; then run it again."""
    outcome, page = Outcome(), dict[str, list[AnyEvent]]()
    task = progress.add_task("dead letters", total=await bus.stream_length(DEAD_LETTER))
    async for letter in bus.all_dead_letters():
        progress.advance(task)
        if letter not in choice:
            continue
        try:
            page[letter.id] = events_of(letter, now)
        except StillBadError as error:
            outcome.kept[f"{':'.join(letter.origin.split(':')[:2])}: {_in_short(str(error))}"] += 1
            continue
        outcome.replayed += 1
        outcome.events += len(page[letter.id])
        if len(page) == _PAGE:
            await _publish(bus, page, dry_run=dry_run)
    await _publish(bus, page, dry_run=dry_run)
    return outcome


async def _publish(bus: Bus, page: dict[str, list[AnyEvent]], *, dry_run: bool) -> None:
    if not dry_run:
        await bus.replay_dead_letters(page)
    page.clear()


async def now_at(bus: Bus, retention_days: int) -> Now:
    """Ask the services for the exchange's time; where none knows it, take the host's."""
    beats = [await bus.heartbeat(service) for service in ("collector", "writer")]
    times = [beat.exchange_time for beat in beats if beat is not None and beat.exchange_time is not None]
    return Now(max(times, default=datetime.now(UTC)), retention_days)


@asynccontextmanager
async def _connected(settings: WriterSettings) -> AsyncIterator[Bus]:
    bus = Bus(str(settings.redis_url))
    try:
        yield bus
    finally:
        await bus.close()


def _run(work: Coroutine[Any, Any, int]) -> None:
    """Run a command and end with its exit code; 3 and a sentence where Redis does not answer."""
    try:
        code = asyncio.run(work)
    except (BusError, OSError) as error:
        Console(stderr=True).print(f"Redis does not answer: {type(error).__name__}")
        code = ExitCode.NOT_AVAILABLE
    sys.exit(code)


# --- Commands

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__, no_args_is_help=True)

Origin = Annotated[str, typer.Option(help="Only those whose origin begins so, such as writer:candles")]
Ids = Annotated[list[str], typer.Option("--id", help="Only this one; may be given several times")]


@app.command("list")
def list_letters(
    origin: Origin = "",
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line, payloads whole")] = False,
    count: Annotated[int, typer.Option(min=1, help="The newest so many")] = 100,
) -> None:
    """List what was set aside, the newest last."""
    _run(_list(read_settings(WriterSettings), Choice(origin), count, json=json))


async def _list(settings: WriterSettings, choice: Choice, count: int, *, json: bool) -> int:
    async with _connected(settings) as bus:
        found = [letter async for letter in bus.all_dead_letters() if letter in choice]
    for letter in found[-count:] if json else ():
        typer.echo(msgspec.json.encode(letter))
    if not json:
        table = Table("id", "at", "origin", "error", "payload", title=f"{len(found[-count:]):,} of {len(found):,}")
        for letter in found[-count:]:
            cells = (letter.id, letter.at[:19], letter.origin, letter.error[:120], letter.payload[:60])
            table.add_row(*(Text(cell) for cell in cells))
        Console().print(table)
    return 0


@app.command("replay")
def replay_letters(
    origin: Origin = "",
    ids: Ids = [],  # noqa: B006 - typer's way to say "several"; it is never changed
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen")] = False,
) -> None:
    """Publish what makes sense by now and remove it from the dead letters; the rest stays, and 1 is the exit code."""
    _run(_replay(read_settings(WriterSettings), Choice(origin, set(ids)), dry_run=dry_run))


async def _replay(settings: WriterSettings, choice: Choice, *, dry_run: bool) -> int:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    async with _connected(settings) as bus:
        now = await now_at(bus, settings.retention_days)
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            outcome = await replay(bus, choice, now, progress, dry_run=dry_run)
    done = "would be replayed" if dry_run else "replayed"
    typer.echo(f"{outcome.replayed:,} {done} as {outcome.events:,} events, {outcome.kept.total():,} stay")
    for reason, count in outcome.kept.most_common():
        typer.echo(f"{count:>8,}  {reason}")
    return 1 if outcome.kept else 0


@app.command("drop")
def drop_letters(
    origin: Origin = "",
    ids: Ids = [],  # noqa: B006 - as above
    everything: Annotated[bool, typer.Option("--all", help="All of them")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this it is only said what would go")] = False,
) -> None:
    """Delete some of what was set aside, for good."""
    if not (origin or ids or everything):
        raise typer.BadParameter("say which: --origin, --id or --all")
    _run(_drop(read_settings(WriterSettings), Choice(origin, set(ids)), yes=yes))


async def _drop(settings: WriterSettings, choice: Choice, *, yes: bool) -> int:
    async with _connected(settings) as bus:
        chosen = [letter.id async for letter in bus.all_dead_letters() if letter in choice]
        if not yes:
            typer.echo(f"{len(chosen):,} would be deleted for good; --yes does it")
            return 1
        dropped = 0
        for start in range(0, len(chosen), _PAGE):
            dropped += await bus.drop_dead_letters(chosen[start : start + _PAGE])
    typer.echo(f"{dropped:,} deleted")
    return 0


if __name__ == "__main__":
    app()
