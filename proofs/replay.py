"""`python -m proofs.replay --data FOLDER`: real minutes in as OKX messages, out of the real pyqlib, value for value.

The simulator replays a recording; the system, started empty near the recording's end, backfills what came before and
follows the rest live: rankings, a midnight, a conversion. Then every recorded minute is compared with Qlib, by an
independent reader of the bins and by pyqlib itself. The exit code is 1 where a value differs.
"""

import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cli.stack import StackError, clear
from proofs.judges.bins import UnreadableDatasetError
from proofs.judges.recorded import RecordedTally, Spans, membership, spans_wrong, verify, wanted_minutes
from proofs.judges.recorded_qlib import UnreadableQlibError, judge_in_research
from proofs.judges.stored import judge_rankings, read_rankings
from proofs.rig.recording import Recorded, UnusableRecordingError, read_recording
from proofs.rig.systems import ComposeSystem, LocalSystem, System
from proofs.units import MINUTE_MS
from shared.runtime.command import run

FOLDER = Path(".run/replay")
LIVE = timedelta(hours=26)
"""Enough for a midnight and three rankings, eight hours apart."""
LIVE_SECONDS = 160.0
MAX_SPEED = 600.0
HISTORY_ROWS_PER_SECOND = 2600
"""History comes at 10 pages of 300 rows a second; measured, with some margin."""
PATIENCE_SECONDS = 120.0
"""Without any progress for this long, the replay has failed."""
KILLED = ("writer", "collector", "converter")

console = Console()


class ReplayError(Exception):
    """The replay did not come to its end; the text says where it stood."""


@dataclass(frozen=True)
class Plan:
    """How a recording is replayed."""

    data: Path
    start: datetime
    end: datetime
    speed: float
    top_n: int
    backfill_days: int
    rows: int
    symbols: int

    def pace(self) -> list[str]:
        """Return the simulator's arguments beside the recording.

        All its symbols are to be collected, also one that was recorded for a while only: nothing is delisted.
        """
        return ["--no-delist", "--start", self.start.isoformat(), "--speed", f"{self.speed:g}"]

    def settings(self, *, kill: bool) -> dict[str, str]:
        """Return the services' settings."""
        return {
            "TOP_N": str(self.top_n),
            "BACKFILL_DAYS": str(self.backfill_days),
            "RETENTION_DAYS": str(self.backfill_days + 7),
            "FLUSH_SECONDS": "2",
            # A converter that is killed in the middle must be at work most of the time.
            "CONVERT_EVERY": str(max(1, int(self.speed))) if kill else "0",
        }


def plan(data: Path, recording: Mapping[str, Recorded], *, top_n: int | None, speed: float | None) -> Plan:
    """Decide where the live part begins and how fast it runs. Pure."""
    first = _instant(min(int(recorded.opens[0]) for recorded in recording.values()))
    end = _instant(max(int(recorded.opens[-1]) for recorded in recording.values()) + MINUTE_MS)
    rows = sum(len(recorded.opens) for recorded in recording.values())
    start = max(end - LIVE, first + (end - first) * 0.1).replace(second=0, microsecond=0)
    live_seconds = max(LIVE_SECONDS, 1.2 * rows / HISTORY_ROWS_PER_SECOND)
    return Plan(
        data=data,
        start=start,
        end=end,
        speed=speed or min(MAX_SPEED, (end - start).total_seconds() / live_seconds),
        top_n=top_n or len(recording),
        backfill_days=(end - first).days + 2,
        rows=rows,
        symbols=len(recording),
    )


def _instant(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC)


def follow(system: System, chosen: Plan, *, kill: bool) -> dict[str, int]:
    """Watch until the recording is over and everything is stored; return how often each service was killed."""
    kills = dict.fromkeys(KILLED, 0)
    killing = _killings(kill=kill)
    with _bars() as bars:
        live = bars.add_task("live", total=100)
        stored = bars.add_task("minutes stored", total=chosen.rows)
        best, since = -1, time.monotonic()
        quiet = 0
        while quiet < _QUIET_POLLS:
            time.sleep(0.5)
            clock, have = system.ask_simulator("/sim/clock"), system.stored()
            bars.update(live, completed=_share(clock))
            bars.update(stored, completed=have)
            if (victim := next(killing)) is not None and not clock["ended"]:
                kills[victim] += _killed(system, victim)
            progress = have + int(clock["now_ms"])
            if progress > best:
                best, since = progress, time.monotonic()
            # Where the recording of one symbol ends before the others', its last minutes stay missing: the clock stands
            # still before the exchange could be believed that it has none. The comparison judges them.
            done = system.missing() == 0 or time.monotonic() - since > _STILL_SECONDS
            over = clock["ended"] and done and system.unfinished() == 0
            quiet = quiet + 1 if over else 0
            if not over and time.monotonic() - since > PATIENCE_SECONDS:
                raise ReplayError(f"no progress for {PATIENCE_SECONDS:g} s: {_where(system, have)}")
    _wait_for_conversion(system, chosen)
    return kills


_STILL_SECONDS = 45.0
"""Longer than it takes to believe an exchange three times, so nothing that can come still comes after it."""
_QUIET_POLLS = 6
"""So many polls in a row with nothing left to do; a heartbeat is written every five seconds."""


def _where(system: System, have: int) -> str:
    return f"{have} minutes stored, {system.missing()} missing, {system.unfinished()} entries unfinished"


def _share(clock: Mapping[str, Any]) -> float:
    return float(100 * (clock["now_ms"] - clock["start_ms"]) / max(1, clock["end_ms"] - clock["start_ms"]))


def _killings(*, kill: bool) -> Iterator[str | None]:
    """Name a service to kill now and then, in turn, at uneven intervals; seeded, so that a run can be repeated."""
    dice = random.Random(7)
    turn = 0
    while True:
        for _ in range(dice.randint(8, 24)):
            yield None
        yield KILLED[turn % len(KILLED)] if kill else None
        turn += 1


def _killed(system: System, victim: str) -> int:
    try:
        system.kill(victim)
    except (StackError, ProcessLookupError):
        return 0  # it was just being restarted
    return 1


def _wait_for_conversion(system: System, chosen: Plan) -> None:
    """Wait for the conversion of the last midnight, which the converter does by itself."""
    midnight = (chosen.end - timedelta(minutes=2)).replace(hour=0, minute=0, second=0, microsecond=0)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while chosen.start < midnight and (system.converted_until() or chosen.start) < midnight:
        if time.monotonic() > deadline:
            raise ReplayError(f"the converter has not converted {midnight}; Qlib ends at {system.converted_until()}")
        time.sleep(0.5)


def _bars() -> Progress:
    columns = (TextColumn("{task.description:>15}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def show(judges: Mapping[str, RecordedTally]) -> None:
    """Print the counts side by side."""
    table = Table(title="recorded minutes against Qlib", title_justify="left")
    table.add_column("count")
    for judge in judges:
        table.add_column(judge, justify="right")
    for name in RecordedTally().counts():
        table.add_row(name, *(f"{getattr(tally, name):,}" for tally in judges.values()))
    console.print(table)


def replay(chosen: Plan, recording: Mapping[str, Recorded], folder: Path, *, kill: bool, compose: bool) -> bool:
    """Run the replay and judge it; return whether there is no difference."""
    began = time.monotonic()
    settings = chosen.settings(kill=kill)
    running: System
    if compose:
        running = ComposeSystem(folder, settings, chosen.data, chosen.pace())
    else:
        running = LocalSystem(folder, settings, ["--data", str(chosen.data), *chosen.pace()])
    with running as system:
        kills = follow(system, chosen, kill=kill)
        dead_letters = system.dead_letters()
        system.finish()
        stored = read_rankings(system.data_dir)
        rankings = judge_rankings(system.ask_simulator, stored, top_n=chosen.top_n)
    members: Spans = membership(running.data_dir)
    wanted = wanted_minutes(members, recording)
    bins = verify(running.qlib_dir, recording, wanted)
    judges = {"bins": replace(bins, spans_wrong=spans_wrong(running.qlib_dir, members))}
    if (by_qlib := judge_in_research(running.qlib_dir, chosen.data, wanted, folder / "wanted.json")) is not None:
        judges["pyqlib"] = by_qlib
    show(judges)
    if strangers := sorted(set(recording) - set(wanted)):
        console.print(f"never in the universe, so not collected: {', '.join(strangers)}", soft_wrap=True)
    if kill:
        console.print("kill -9: " + ", ".join(f"{name} {count} times" for name, count in kills.items()))
    ranked = f"{rankings.rankings} rankings, {rankings.ranking_wrong} wrong"
    console.print(f"{ranked}; {dead_letters} dead letters; {time.monotonic() - began:.0f} s")
    console.print(f"raw data: {folder / 'okx_data'}   Qlib data: {folder / 'qlib_data'}", markup=False, soft_wrap=True)
    return not rankings.faults and all(tally.clean for tally in judges.values())


def main(
    data: Annotated[Path, typer.Option(help="Folder with candles_1m.parquet and funding.parquet")],
    *,
    top_n: Annotated[int | None, typer.Option(min=1, help="Size of the universe [default: all its symbols]")] = None,
    speed: Annotated[float | None, typer.Option(min=1, help="Simulated seconds per second [default: fits]")] = None,
    folder: Annotated[Path, typer.Option(help="Where the run keeps its data and logs")] = FOLDER,
    compose: Annotated[bool, typer.Option("--compose", help="Run it with docker compose, profile sim")] = False,
    kill: Annotated[bool, typer.Option("--kill", help="kill -9 writer, collector and converter now and then")] = False,
) -> None:
    """Replay a recording through the whole system and compare what comes out of Qlib, value for value."""
    if compose and kill:
        raise typer.BadParameter("--kill needs processes, not containers")
    try:
        recording = read_recording(data)
        chosen = plan(data.resolve(), recording, top_n=top_n, speed=speed)
        clear(folder)
        console.print(
            f"{chosen.rows:,} minutes of {chosen.symbols} symbols; live from {chosen.start:%F %H:%M} "
            f"to {chosen.end:%F %H:%M} UTC at {chosen.speed:.0f} times the speed; universe of {chosen.top_n}"
        )
        same = replay(chosen, recording, folder, kill=kill, compose=compose)
    except (UnusableRecordingError, UnreadableDatasetError, UnreadableQlibError, StackError, ReplayError) as error:
        # A path is not broken where the window ends: it is to be copied.
        console.print(f"[red]replay failed:[/red] {escape(str(error))}", soft_wrap=True)
        raise SystemExit(2) from None
    console.print("[green]no difference[/green]" if same else "[red]DIFFERENT[/red]: see the counts above")
    raise SystemExit(0 if same else 1)


if __name__ == "__main__":
    run(main)
