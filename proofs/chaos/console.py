"""The output of a campaign: progress while it runs, tables afterwards, and how to repeat a failure."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from proofs.chaos.outcome import Outcome, around, instant
from proofs.chaos.plan import Plan
from proofs.judges.recorded import RecordedTally

_AROUND_SECONDS = 5.0
_SHOWN = 12

console = Console()


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
    for name, count in outcome.raw.spelled().items():
        counts.add_row(name, f"{count:,}")
    console.print(counts)
    qlib = Table(title="Qlib", title_justify="left")
    qlib.add_column("count")
    for name in outcome.qlib:
        qlib.add_column(name, justify="right")
    for name in RecordedTally().counts():
        qlib.add_row(name, *(f"{getattr(tally, name):,}" for tally in outcome.qlib.values()))
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
        show_failure(plan, outcome)


def show_failure(plan: Plan, outcome: Outcome) -> None:
    """Print the command that repeats it, the first difference, and what happened around it."""
    say = {"markup": False, "highlight": False, "soft_wrap": True}
    console.print(f"seed {plan.seed}; again: {plan.command()}", **say)  # type: ignore[arg-type]
    for line in outcome.deaths[:_SHOWN]:
        console.print(f"died: {line}", **say)  # type: ignore[arg-type]
    if outcome.unhealed:
        console.print(f"not healed: {outcome.unhealed}", **say)  # type: ignore[arg-type]
    for trouble in [*map(str, outcome.audited.unexpected), *outcome.audited.troubles][:_SHOWN]:
        console.print(f"audit: {trouble}", **say)  # type: ignore[arg-type]
    if outcome.raw.differences:
        first = outcome.raw.differences[0]
        text = f"first difference: {first.symbol} {instant(first.at_ms)}: {first.problem}"
        console.print(f"{text}\n  stored: {first.stored}\n  true:   {first.true}", **say)  # type: ignore[arg-type]
        for line in around(outcome, first.at_ms, int(_AROUND_SECONDS * plan.speed * 1000))[:_SHOWN]:
            console.print(f"  {line}", **say)  # type: ignore[arg-type]


class Bar:
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
