"""`python -m launch.chaos --seed 1 --minutes 5`: everything goes wrong at once, and not a minute may be lost.

The real processes follow a generated market, many times as fast as the real one, while faults of every kind hit them in
an order that the seed decides: processes, Redis, disk, files, sockets, answers. Then it grows quiet, the system gets
time to heal, and all that it stored is compared with what the simulator knows to be true.
"""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from launch import truth
from launch.chaos_audit import Audited, audit, by_hand, corrected_minutes, windows_of
from launch.chaos_faults import Happened, Host, Wire, deaths
from launch.chaos_plan import DISK, HOST, WIRE, Strike, chosen_kinds, schedule, shares, wire_arguments
from launch.recording import Recorded
from launch.small_disk import NoSmallDiskError, SmallDisk
from launch.stack import SERVICES, StackError, clear, end_on_signals, tail
from launch.systems import LocalSystem
from launch.verify import Counts, membership, spans_wrong, verify
from launch.verify_qlib import UnreadableQlibError, judge_in_research
from shared.command import run

FOLDER = Path(".run/chaos")
START = datetime(2026, 3, 1, 5, 30, tzinfo=UTC)
DISK_BYTES = 4 << 30
"""Sparse: only what is written takes space."""
PICKUP_SECONDS = 60.0
"""How long a collector may be away before it takes a ranking over."""
SETTLE_SECONDS = 600.0
"""Much: the history that a Redis forgot, and of those ranked anew at many times the pace, comes at the exchange's
limits."""
_LOOK_SECONDS = 2.0
_STEP_SECONDS = 0.1
_FAULT_LOG = "faults.jsonl"
_AROUND_SECONDS = 5.0
_TOLD = 12

console = Console()


class ChaosError(Exception):
    """The run did not come to its end; the text says where it stood."""


@dataclass(frozen=True)
class Plan:
    """One run."""

    seed: int
    minutes: float
    symbols: int
    members: int
    speed: float
    rate: float
    backfill_days: int
    settle_seconds: float
    only: str = ""
    without: str = ""
    has_disk: bool = True

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of faults that take part."""
        return tuple(kind for kind in chosen_kinds(self.only, self.without) if self.has_disk or kind not in DISK)

    @property
    def start(self) -> datetime:
        """Where the simulated time begins: at another minute of the day for each seed."""
        return START + timedelta(minutes=self.seed * 61 % 1440)

    def market(self) -> list[str]:
        """Return the simulator's arguments."""
        sizes = ["--symbols", str(self.symbols), "--seed", str(self.seed)]
        pace = ["--speed", f"{self.speed:g}", "--start", self.start.isoformat()]
        faults = wire_arguments(self.seed, shares(self.rate, self.kinds)[1], self.kinds)
        return [*sizes, *pace, *faults, "--fault-log", _FAULT_LOG]

    def strikes(self) -> list[Strike]:
        """Return the faults of the host."""
        kinds = [kind for kind in self.kinds if kind in HOST]
        return schedule(self.seed, 60 * self.minutes, shares(self.rate, self.kinds)[0], kinds)

    def settings(self) -> dict[str, str]:
        """Return the services' settings."""
        return {
            "TOP_N": str(self.members),
            "BACKFILL_DAYS": str(self.backfill_days),
            "RETENTION_DAYS": str(self.backfill_days + 60),
            "FLUSH_SECONDS": "1",
            "CONVERT_EVERY": str(max(1, int(5 * self.speed))),
            "LOG_FORMAT": "json",
        }

    def command(self) -> str:
        """Return what repeats it."""
        return (
            f"make chaos SEED={self.seed} MINUTES={self.minutes:g} SYMBOLS={self.symbols} MEMBERS={self.members} "
            f"SPEED={self.speed:g} RATE={self.rate:g}"
            + "".join(f' {name}="{words}"' for name, words in (("ONLY", self.only), ("WITHOUT", self.without)) if words)
        )


@dataclass
class Outcome:
    """What a run found."""

    judgement: truth.Judgement = field(default_factory=truth.Judgement)
    qlib: dict[str, Counts] = field(default_factory=dict)
    injected: Counter[str] = field(default_factory=Counter)
    happened: Counter[str] = field(default_factory=Counter)
    deaths: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    unhealed: dict[str, Any] = field(default_factory=dict)
    """What still lacked, or was not well, when the time to heal was over."""
    audited: Audited = field(default_factory=Audited)
    """What the audits by hand found of the minutes that the exchange changed later."""
    dead_letters: int = 0
    settle_seconds: float = 0.0
    log: list[Happened] = field(default_factory=list)
    wire_log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Return whether nothing was lost, doubled, wrong, shifted or invented, and no process died by itself."""
        qlib = bool(self.qlib) and all(counts.clean for counts in self.qlib.values())
        audited = not self.audited.unexpected and not self.audited.troubles
        return self.judgement.clean and qlib and audited and not self.deaths and not self.unhealed


# --- The faults


def rage(system: LocalSystem, plan: Plan, strikes: list[Strike], host: Host, wire: Wire) -> None:
    """Let the strikes fall, each at its time."""
    began = time.monotonic()
    left = list(reversed(strikes))
    with _bar("strikes", 60 * plan.minutes) as (bars, task):
        while (elapsed := time.monotonic() - began) < 60 * plan.minutes:
            while left and left[-1].at <= elapsed:
                strike = left.pop()
                host.strike(strike)
            host.tick()
            if system.stack.ended("simulator"):
                raise ChaosError(f"the simulator has ended:\n{tail(system.stack.log_of('simulator'))}")
            bars.update(task, completed=elapsed, description=f"{len(strikes) - len(left)} of {len(strikes)} strikes")
            time.sleep(_STEP_SECONDS)
    host.end()
    wire.stop()


# --- The healing


class Healing:
    """Looks at the disk until nothing lacks of what happened before an instant."""

    def __init__(self, system: LocalSystem, plan: Plan, until_ms: int) -> None:
        self._system = system
        self._plan = plan
        self.until_ms = until_ms
        self._truths: dict[str, tuple[int, Recorded]] = {}
        self._stored = truth.StoredMinutes(system.data_dir)
        self.set_aside: dict[str, list[int]] = {}
        """Symbol → the minutes that nobody can know to be other than they were stored, until an audit."""
        self.at_rest = False
        """Whether there are no more rankings: then nothing becomes wanted any more, and the ledger can be complete."""

    def windows(self) -> dict[str, truth.Windows]:
        """Return what is wanted by the rankings on disk."""
        members = {
            symbol: early
            for symbol, spans in membership(self._system.data_dir).items()
            if (early := [span for span in spans if span[0] < self.until_ms])
        }
        pickup = int(PICKUP_SECONDS * self._plan.speed * 1000)
        return truth.wanted_windows(
            members, backfill_days=self._plan.backfill_days, pickup_ms=pickup, end_ms=self.until_ms
        )

    def lacking(self) -> dict[str, Any]:
        """Return what is wanted and not on disk as it was, and who is not well; nothing if all is healed."""
        settled = truth.read_settlements(self._system.data_dir)
        minutes, settlements = 0, 0
        for symbol, windows in self.windows().items():
            true = self._truth(symbol, windows)
            expected = truth.inside(true.opens, windows) & ~np.isin(true.opens, self.set_aside.get(symbol, []))
            minutes += self._stored.unlike(symbol, true, expected)
            due = true.settled_times[truth.inside(true.settled_times, truth.due_in(windows))]
            settlements += sum(time not in settled.get(symbol, {}) for time in due.tolist())
        # The converter waits for a history that is complete: never, while every minute of ours has its re-ranking.
        services = [service for service in SERVICES if service != ("ranker" if self.at_rest else "converter")]
        found = {"minutes": minutes, "settlements": settlements, **self._system.unwell(services)}
        if self.at_rest:
            ledger = truth.read_ledger(self._system.data_dir) or {}
            found["verdicts"] = sum(truth.open_minutes(sets, self.until_ms) for sets in ledger.values())
        return {name: what for name, what in found.items() if what}

    def rest(self) -> None:
        """Let there be no more rankings: a symbol that comes back makes old minutes wanted, for a while missing."""
        self._system.stack.stop_program("ranker")
        self.set_aside.clear()
        self.at_rest = True

    def _truth(self, symbol: str, windows: truth.Windows) -> Recorded:
        known = self._truths.get(symbol)
        begin = windows[0][0] - truth.DAY_MS
        if known is None or known[0] > begin:
            known = begin, truth.read_truth(self._system.ask_simulator, symbol, begin, self.until_ms)
            self._truths[symbol] = known
        return known[1]

    def wait(self, seconds: float) -> dict[str, Any]:
        """Wait until all is healed; return what is not when the time is over."""
        began = time.monotonic()
        with _bar("healing", seconds) as (bars, task):
            while lacking := self.lacking():
                elapsed = time.monotonic() - began
                if elapsed > seconds:
                    return lacking
                told = ", ".join(f"{name} {what}" for name, what in lacking.items())
                bars.update(task, completed=elapsed, description=f"healing: {told[:80]}")
                time.sleep(_LOOK_SECONDS)
        return {}


def audit_corrected(system: LocalSystem, plan: Plan, minutes: set[tuple[str, int]]) -> Audited:
    """Audit by hand what the exchange changed after it was closed, of the symbols that are collected."""
    stack, collected = system.stack, truth.stored_symbols(system.data_dir)
    return audit(
        windows_of((symbol, opened) for symbol, opened in minutes if symbol in collected),
        known=minutes,
        command=partial(by_hand, folder=stack.folder, environment=stack.env),
        now_ms=lambda: int(system.ask_simulator("/sim/clock")["now_ms"]),
        speed=plan.speed,
    )


def heal(system: LocalSystem, plan: Plan, healing: Healing, corrected: set[tuple[str, int]]) -> Outcome:
    """Wait until the system has healed what it can notice, audit what it cannot, and wait until that is stored."""
    outcome = Outcome()
    for symbol, opened in corrected:
        healing.set_aside.setdefault(symbol, []).append(opened)
    began = time.monotonic()
    outcome.unhealed = healing.wait(plan.settle_seconds)
    outcome.settle_seconds = round(time.monotonic() - began, 1)
    if not outcome.unhealed:
        outcome.audited = audit_corrected(system, plan, corrected)
        healing.rest()
        outcome.unhealed = healing.wait(plan.settle_seconds)
    return outcome


# --- The judgement


def judge(system: LocalSystem, plan: Plan, healing: Healing) -> tuple[truth.Judgement, dict[str, Counts]]:
    """Compare raw data and Qlib with the truth, once the services have stopped."""
    judgement, now_ms = truth.Judgement(), int(system.ask_simulator("/sim/clock")["now_ms"])
    windows = healing.windows()
    settled, ledger = truth.read_settlements(system.data_dir), truth.read_ledger(system.data_dir)
    recording: dict[str, Recorded] = {}
    begin = min(int(plan.start.timestamp() * 1000), *(spans[0][0] for spans in windows.values()))
    symbols = sorted(truth.stored_symbols(system.data_dir) | set(windows))
    with _bar("comparing", len(symbols)) as (bars, task):
        for symbol in symbols:
            wanted = windows.get(symbol, [])
            stored, unreadable = truth.read_stored(system.data_dir, symbol)
            first = min([begin, *stored.opens.tolist()])
            true = truth.read_truth(system.ask_simulator, symbol, first - 8 * truth.DAY_MS, now_ms)
            must = truth.inside(true.opens, wanted)
            due = truth.inside(true.settled_times, truth.due_in(wanted))
            parts = [
                truth.judge_candles(symbol, stored, true, must),
                truth.judge_settlements(symbol, settled.get(symbol, {}), true, due),
            ]
            if ledger is not None:
                parts.append(
                    truth.judge_ledger(symbol, ledger.get(symbol, {}), stored, true, wanted, end_ms=healing.until_ms)
                )
            judgement.wrong["unreadable files"] += len(unreadable)
            for part in parts:
                judgement.add(part)
            kept = truth.only(
                true,
                must | np.isin(true.opens, stored.opens),
                due | np.isin(true.settled_times, [*settled.get(symbol, {})]),
            )
            if len(kept.opens):
                recording[symbol] = kept
            bars.advance(task)
    rankings = truth.read_rankings(system.data_dir)
    judgement.add(truth.judge_rankings(system.ask_simulator, rankings, top_n=plan.members))
    judgement.add(truth.judge_told_rankings(_told_rankings(system.stack.folder), rankings))
    return judgement, _judge_qlib(system, recording, now_ms)


def _told_rankings(folder: Path) -> list[int]:
    """Return the instants of the rankings that the ranker's log tells of: each of them was published."""
    found = []
    for path in (folder / "logs").glob("ranker.log*"):
        for line in path.read_text(errors="replace").splitlines():
            with suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict) and entry.get("event") == "ranked":
                    found.append(int(datetime.fromisoformat(entry["at"]).timestamp() * 1000))
    return sorted(found)


def _judge_qlib(system: LocalSystem, recording: Mapping[str, Recorded], until_ms: int) -> dict[str, Counts]:
    """Let both judges compare Qlib with all that is wanted or stored."""
    wanted = dict.fromkeys(recording, until_ms)
    counts = verify(system.qlib_dir, recording, wanted)
    members = membership(system.data_dir)
    judges = {"bins": replace(counts, spans_wrong=spans_wrong(system.qlib_dir, members))}
    folder = system.stack.folder / "truth"
    truth.write_recording(folder, recording)
    by_qlib = judge_in_research(system.qlib_dir, folder, wanted, folder / "wanted.json")
    return judges if by_qlib is None else judges | {"pyqlib": by_qlib}


# --- The run


def chaos(plan: Plan, folder: Path, disk: SmallDisk | None) -> Outcome:
    """Run it all and judge it."""
    settings = plan.settings()
    if disk is not None:
        settings |= {"DATA_DIR": str(disk.path / "okx_data"), "QLIB_DIR": str(disk.path / "qlib_data")}
    with LocalSystem(folder, settings, plan.market()) as system:
        _wait_for_members(system, plan)
        host = Host(system.stack, disk)
        wire = Wire(system.stack, system.stack.folder / _FAULT_LOG, rages=bool(set(plan.kinds) & set(WIRE)))
        rage(system, plan, plan.strikes(), host, wire)
        healing = Healing(system, plan, int(system.ask_simulator("/sim/clock")["now_ms"]) // 60_000 * 60_000)
        outcome = heal(system, plan, healing, corrected_minutes(wire.log()))
        outcome.dead_letters = system.dead_letters()
        try:
            system.finish()
        except subprocess.CalledProcessError as error:
            raise ChaosError(f"the last conversion failed: {error}") from error
        outcome.judgement, outcome.qlib = judge(system, plan, healing)
    outcome.injected = host.injected + wire.injected
    outcome.happened = Counter(fault.kind for fault in host.happened) + wire.happened
    outcome.log, outcome.wire_log = host.happened, wire.log()
    outcome.deaths = deaths(system.stack.folder)
    return outcome


def _wait_for_members(system: LocalSystem, plan: Plan) -> None:
    deadline = time.monotonic() + SETTLE_SECONDS
    while system.subscribed() < plan.members:
        if time.monotonic() > deadline:
            raise ChaosError(f"only {system.subscribed()} of {plan.members} members are followed")
        time.sleep(_STEP_SECONDS)


# --- What is told


def show(plan: Plan, outcome: Outcome) -> None:
    """Print faults, counts and verdict."""
    faults = Table(title="faults", title_justify="left")
    for name in ("kind", "injected", "happened"):
        faults.add_column(name, justify="left" if name == "kind" else "right")
    for kind in sorted(outcome.injected):
        faults.add_row(kind, str(outcome.injected[kind]), str(outcome.happened[kind]))
    faults.add_section()
    faults.add_row("all", str(outcome.injected.total()), str(outcome.happened.total()))
    console.print(faults)
    counts = Table(title="stored against true", title_justify="left")
    for name in ("raw data", "count"):
        counts.add_column(name, justify="left" if name == "raw data" else "right")
    for name, count in {**outcome.judgement.compared, **outcome.judgement.wrong}.items():
        counts.add_row(name, f"{count:,}")
    console.print(counts)
    qlib = Table(title="Qlib", title_justify="left")
    qlib.add_column("count")
    for name in outcome.qlib:
        qlib.add_column(name, justify="right")
    for name in Counts.__dataclass_fields__:
        qlib.add_row(name, *(f"{getattr(counts, name):,}" for counts in outcome.qlib.values()))
    console.print(qlib)
    for kind, reason in outcome.skipped.items():
        console.print(f"skipped: {kind}: {reason}")
    if outcome.audited.counts:
        console.print(f"audited by hand: {', '.join(f'{n} {what}' for what, n in outcome.audited.counts.items())}")
    kills = sum(count for kind, count in outcome.happened.items() if "kill" in kind)
    console.print(
        f"{kills} kills; {outcome.dead_letters} dead letters; healed within {outcome.settle_seconds:g} s; "
        f"{len(outcome.deaths)} processes died by themselves"
    )
    if not outcome.passed:
        tell_failure(plan, outcome)


def tell_failure(plan: Plan, outcome: Outcome) -> None:
    """Say how to see it again, the first difference, and what happened around it."""
    say = {"markup": False, "highlight": False, "soft_wrap": True}
    console.print(f"seed {plan.seed}; again: {plan.command()}", **say)  # type: ignore[arg-type]
    for line in outcome.deaths[:_TOLD]:
        console.print(f"died: {line}", **say)  # type: ignore[arg-type]
    if outcome.unhealed:
        console.print(f"not healed: {outcome.unhealed}", **say)  # type: ignore[arg-type]
    for trouble in [*map(str, outcome.audited.unexpected), *outcome.audited.troubles][:_TOLD]:
        console.print(f"audit: {trouble}", **say)  # type: ignore[arg-type]
    if outcome.judgement.differences:
        first = outcome.judgement.differences[0]
        told = f"first difference: {first.symbol} {_instant(first.at_ms)}: {first.problem}"
        console.print(f"{told}\n  stored: {first.stored}\n  true:   {first.true}", **say)  # type: ignore[arg-type]
        for line in around(outcome, first.at_ms, int(_AROUND_SECONDS * plan.speed * 1000))[:_TOLD]:
            console.print(f"  {line}", **say)  # type: ignore[arg-type]


def around(outcome: Outcome, at_ms: int, width_ms: int) -> list[str]:
    """Return what happened around an instant, the host's faults and the wire's, in order. Pure."""
    found = [
        (fault.began_ms, f"{fault.kind}: {fault.detail}")
        for fault in outcome.log
        if fault.began_ms - width_ms <= at_ms <= fault.ended_ms + width_ms
    ]
    wire: dict[tuple[str, int], int] = Counter()
    for entry in outcome.wire_log:
        if abs(entry["now_ms"] - at_ms) <= width_ms:
            wire[entry["kind"], entry["now_ms"] // 60_000 * 60_000] += 1
    found += [(minute, f"{kind}, {count} times") for (kind, minute), count in wire.items()]
    return [f"{_instant(time)}  {text}" for time, text in sorted(found)]


def _instant(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC).strftime("%F %T")


def report(plan: Plan, outcome: Outcome, seconds: float) -> dict[str, Any]:
    """Return the run as plain values; counts of several runs can be summed up."""
    return {
        "seed": plan.seed,
        "command": plan.command(),
        "passed": outcome.passed,
        "seconds": round(seconds, 1),
        "settle_seconds": outcome.settle_seconds,
        "injected": dict(outcome.injected),
        "happened": dict(outcome.happened),
        "compared": dict(outcome.judgement.compared),
        "wrong": dict(outcome.judgement.wrong),
        "qlib": {name: counts.__dict__ for name, counts in outcome.qlib.items()},
        "audited": dict(outcome.audited.counts),
        "audit_unexpected": [difference._asdict() for difference in outcome.audited.unexpected],
        "audit_troubles": outcome.audited.troubles,
        "dead_letters": outcome.dead_letters,
        "deaths": outcome.deaths,
        "unhealed": outcome.unhealed,
        "skipped": outcome.skipped,
        "differences": [difference._asdict() for difference in outcome.judgement.differences],
    }


def _bar(text: str, total: float) -> "_Bar":
    return _Bar(text, total)


class _Bar:
    """A progress bar on a terminal, nothing elsewhere."""

    def __init__(self, text: str, total: float) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bars.add_task(text, total=total)

    def __enter__(self) -> tuple[Progress, Any]:
        self._bars.start()
        return self._bars, self._task

    def __exit__(self, *_: object) -> None:
        self._bars.stop()


def main(
    *,
    seed: Annotated[int, typer.Option(help="Decides the market and the faults")] = 1,
    minutes: Annotated[float, typer.Option(min=0.1, help="How long faults fall")] = 5.0,
    symbols: Annotated[int, typer.Option(min=2, help="Size of the generated market")] = 60,
    members: Annotated[int | None, typer.Option(min=1, help="Size of the universe [default: 5/6 of it]")] = None,
    speed: Annotated[float, typer.Option(min=1, help="Simulated seconds per second")] = 600.0,
    rate: Annotated[float, typer.Option(min=0.01, help="Faults per second, on average")] = 0.8,
    backfill_days: Annotated[int, typer.Option(min=1, help="Days of history to fetch")] = 3,
    settle: Annotated[float, typer.Option(min=1, help="Seconds to heal, at most")] = SETTLE_SECONDS,
    only: Annotated[str, typer.Option(help="Only kinds with one of these words, comma between")] = "",
    without: Annotated[str, typer.Option(help="No kind with one of these words, comma between")] = "",
    report_file: Annotated[Path | None, typer.Option("--report", help="Write the outcome as JSON")] = None,
    folder: Annotated[Path, typer.Option(help="Where the run keeps its data and logs")] = FOLDER,
) -> None:
    """Let everything go wrong for some minutes; then compare every stored minute with the truth."""
    end_on_signals()
    began = time.monotonic()
    plan = Plan(
        seed, minutes, symbols, members or max(1, symbols * 5 // 6), speed, rate, backfill_days, settle, only, without
    )
    disk, skipped = None, {}
    try:
        clear(folder)
        folder.mkdir(parents=True)
        if set(DISK) & set(plan.kinds):
            try:
                disk = small_disk(folder.resolve())
            except NoSmallDiskError as error:
                skipped = dict.fromkeys(DISK, str(error))
                plan = replace(plan, has_disk=False)
        console.print(f"{plan.command()}; {len(plan.kinds)} kinds of faults; from {plan.start:%F %H:%M} UTC on")
        outcome = chaos(plan, folder, disk)
    except (ChaosError, StackError, UnreadableQlibError, OSError) as error:
        console.print(f"[red]chaos failed:[/red] {escape(str(error))}", soft_wrap=True)
        raise SystemExit(2) from None
    outcome.skipped = skipped
    show(plan, outcome)
    if report_file is not None:
        report_file.write_text(json.dumps(report(plan, outcome, time.monotonic() - began), indent=1) + "\n")
    console.print("[green]no difference[/green]" if outcome.passed else "[red]DIFFERENT[/red]: see above")
    raise SystemExit(0 if outcome.passed else 1)


def small_disk(folder: Path) -> SmallDisk:
    """Return a mounted disk that can be filled up. Raises `NoSmallDiskError`."""
    disk = SmallDisk(folder, DISK_BYTES)
    disk.mount()
    return disk


if __name__ == "__main__":
    run(main)
