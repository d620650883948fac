"""One campaign: the faults fall, the system heals, what it stored is judged. I/O."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cli.stack import SERVICES, tail
from proofs.chaos.audit import Audited, audit, by_hand, corrected_minutes, windows_of
from proofs.chaos.console import Bar
from proofs.chaos.faults import Host, Wire, deaths
from proofs.chaos.outcome import Outcome
from proofs.chaos.plan import FAULT_LOG, WIRE, Plan, Strike
from proofs.judges import stored as truth
from proofs.judges.ledger import judge_ledger, open_minutes, read_ledger, unwanted_minutes
from proofs.judges.recorded import RecordedTally, membership, spans_wrong, verify
from proofs.judges.recorded_qlib import judge_in_research
from proofs.rig.recording import Recorded
from proofs.rig.small_disk import SmallDisk
from proofs.rig.systems import LocalSystem
from proofs.units import DAY_MS, MINUTE_MS

PICKUP_SECONDS = 60.0
"""How long a collector may be away before it takes a ranking over."""
SETTLE_SECONDS = 600.0
"""Long: the history that a Redis lost, and that of symbols ranked again at many times the pace, comes at the
exchange's limits."""
_POLL_SECONDS = 2.0
_STEP_SECONDS = 0.1


class ChaosError(Exception):
    """The run did not come to its end; the text says where it stood."""


# --- The faults


def rage(system: LocalSystem, plan: Plan, strikes: list[Strike], host: Host, wire: Wire) -> None:
    """Let the strikes fall, each at its time."""
    began = time.monotonic()
    left = list(reversed(strikes))
    with Bar("strikes", 60 * plan.minutes) as (bars, task):
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
    """Reads the disk again and again until all that happened before an instant is there."""

    def __init__(self, system: LocalSystem, plan: Plan, until_ms: int) -> None:
        self._system = system
        self._plan = plan
        self.until_ms = until_ms
        self._truths: dict[str, tuple[int, Recorded]] = {}
        self._stored = truth.StoredMinutes(system.data_dir)
        self.set_aside: dict[str, list[int]] = {}
        """Symbol → minutes that the exchange changed after they were stored; only an audit can find them."""
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
            ledger = read_ledger(self._system.data_dir) or {}
            found["verdicts"] = sum(open_minutes(sets, self.until_ms) for sets in ledger.values())
            found["not wanted"] = sum(
                unwanted_minutes(ledger.get(symbol, {}), windows) for symbol, windows in self.windows().items()
            )
        return {name: what for name, what in found.items() if what}

    def rest(self) -> None:
        """Let there be no more rankings: a symbol that comes back makes old minutes wanted, for a while missing."""
        self._system.stack.stop_program("ranker")
        self.set_aside.clear()
        self.at_rest = True

    def _truth(self, symbol: str, windows: truth.Windows) -> Recorded:
        known = self._truths.get(symbol)
        begin = windows[0][0] - DAY_MS
        if known is None or known[0] > begin:
            known = begin, truth.read_truth(self._system.ask_simulator, symbol, begin, self.until_ms)
            self._truths[symbol] = known
        return known[1]

    def wait(self, seconds: float) -> dict[str, Any]:
        """Wait until all is healed; return what is not when the time is over."""
        began = time.monotonic()
        with Bar("healing", seconds) as (bars, task):
            while lacking := self.lacking():
                elapsed = time.monotonic() - began
                if elapsed > seconds:
                    return lacking
                text = ", ".join(f"{name} {what}" for name, what in lacking.items())
                bars.update(task, completed=elapsed, description=f"healing: {text[:80]}")
                time.sleep(_POLL_SECONDS)
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


def judge(system: LocalSystem, plan: Plan, healing: Healing) -> tuple[truth.StoredTally, dict[str, RecordedTally]]:
    """Compare raw data and Qlib with the truth, once the services have stopped."""
    found, now_ms = truth.StoredTally(), int(system.ask_simulator("/sim/clock")["now_ms"])
    windows = healing.windows()
    settled, ledger = truth.read_settlements(system.data_dir), read_ledger(system.data_dir)
    recording: dict[str, Recorded] = {}
    begin = min(int(plan.start.timestamp() * 1000), *(spans[0][0] for spans in windows.values()))
    symbols = sorted(truth.stored_symbols(system.data_dir) | set(windows))
    with Bar("comparing", len(symbols)) as (bars, task):
        for symbol in symbols:
            wanted = windows.get(symbol, [])
            stored, unreadable = truth.read_stored(system.data_dir, symbol)
            first = min([begin, *stored.opens.tolist()])
            true = truth.read_truth(system.ask_simulator, symbol, first - 8 * DAY_MS, now_ms)
            must = truth.inside(true.opens, wanted)
            due = truth.inside(true.settled_times, truth.due_in(wanted))
            parts = [
                truth.judge_candles(symbol, stored, true, must),
                truth.judge_settlements(symbol, settled.get(symbol, {}), true, due),
            ]
            if ledger is not None:
                refused = truth.read_refused(system.ask_simulator, symbol, first, now_ms)
                verdicts = ledger.get(symbol, {})
                until_ms = healing.until_ms
                parts.append(judge_ledger(symbol, verdicts, stored, true, wanted, end_ms=until_ms, refused=refused))
            found.unreadable_files += len(unreadable)
            for part in parts:
                found.add(part)
            kept = truth.only(
                true,
                must | np.isin(true.opens, stored.opens),
                due | np.isin(true.settled_times, [*settled.get(symbol, {})]),
            )
            if len(kept.opens):
                recording[symbol] = kept
            bars.advance(task)
    rankings = truth.read_rankings(system.data_dir)
    found.add(truth.judge_rankings(system.ask_simulator, rankings, top_n=plan.members))
    found.add(truth.judge_published_rankings(_published_rankings(system.stack.folder), rankings))
    return found, _judge_qlib(system, recording, now_ms)


def _published_rankings(folder: Path) -> list[int]:
    """Return the instants of the rankings in the ranker's log: each of them was published."""
    found = []
    for path in (folder / "logs").glob("ranker.log*"):
        for line in path.read_text(errors="replace").splitlines():
            with suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict) and entry.get("event") == "ranked":
                    found.append(int(datetime.fromisoformat(entry["at"]).timestamp() * 1000))
    return sorted(found)


def _judge_qlib(system: LocalSystem, recording: Mapping[str, Recorded], until_ms: int) -> dict[str, RecordedTally]:
    """Let both judges compare Qlib with all that is wanted or stored."""
    wanted = dict.fromkeys(recording, until_ms)
    bins = verify(system.qlib_dir, recording, wanted)
    members = membership(system.data_dir)
    judges = {"bins": replace(bins, spans_wrong=spans_wrong(system.qlib_dir, members))}
    folder = system.stack.folder / "truth"
    truth.write_recording(folder, recording)
    by_qlib = judge_in_research(system.qlib_dir, folder, wanted, folder / "wanted.json")
    return judges if by_qlib is None else judges | {"pyqlib": by_qlib}


# --- All of it


def campaign(plan: Plan, folder: Path, disk: SmallDisk | None) -> Outcome:
    """Run it all and judge it."""
    settings = plan.settings()
    if disk is not None:
        settings |= {"DATA_DIR": str(disk.path / "okx_data"), "QLIB_DIR": str(disk.path / "qlib_data")}
    with LocalSystem(folder, settings, plan.market()) as system:
        _wait_for_members(system, plan)
        host = Host(system.stack, disk)
        wire = Wire(system.stack, system.stack.folder / FAULT_LOG, rages=bool(set(plan.kinds) & set(WIRE)))
        rage(system, plan, plan.strikes(), host, wire)
        healing = Healing(system, plan, int(system.ask_simulator("/sim/clock")["now_ms"]) // MINUTE_MS * MINUTE_MS)
        outcome = heal(system, plan, healing, corrected_minutes(wire.log()))
        outcome.dead_letters = system.dead_letters()
        try:
            system.finish()
        except subprocess.CalledProcessError as error:
            raise ChaosError(f"the last conversion failed: {error}") from error
        outcome.raw, outcome.qlib = judge(system, plan, healing)
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
