"""`python -m proofs.chaos.report FILES...`: adds up what several chaos runs wrote with --report."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from proofs.chaos.plan import HOST, WIRE
from shared.runtime.command import run

_OF_QLIB = ("missing", "invented", "wrong", "shifted", "funding_wrong", "off_grid", "spans_wrong")

console = Console(highlight=False)


class BadReportError(Exception):
    """A file is no report of a chaos run."""


@dataclass
class Total:
    """Several runs as one."""

    runs: list[str] = field(default_factory=list)
    """The commands that repeat them."""
    seeds: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """The commands of the runs that did not pass."""
    seconds: float = 0.0
    injected: Counter[str] = field(default_factory=Counter)
    happened: Counter[str] = field(default_factory=Counter)
    compared: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    qlib: dict[str, Counter[str]] = field(default_factory=dict)
    audited: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    """Deaths, things not healed and dead letters."""

    def lacking(self, *, faults: int, candles: int, each: int) -> list[str]:
        """Say what was not proved: runs that failed, differences, too few faults, candles, or faults of a kind. Pure.

        A fault counts that took place; one that was armed and found nothing to hit does not.
        """
        found = [f"failed: {command}" for command in self.failed]
        found += [f"{name}: {count:,}" for name, count in self.wrong.items() if count]
        found += [f"Qlib by {judge}: {name}: {count:,}" for judge, name, count in self._of_qlib() if count]
        if self.happened.total() < faults:
            found.append(f"{self.happened.total():,} faults of {faults:,}")
        if self.compared["candles"] < candles:
            found.append(f"{self.compared['candles']:,} candles of {candles:,}")
        rare = [f"{kind} {self.happened[kind]}" for kind in (*HOST, *WIRE) if self.happened[kind] < each]
        return found + ([f"less than {each} times: {', '.join(rare)}"] if rare else [])

    def _of_qlib(self) -> list[tuple[str, str, int]]:
        return [(judge, name, counts[name]) for judge, counts in self.qlib.items() for name in _OF_QLIB]


def add_up(reports: Iterable[Mapping[str, Any]]) -> Total:
    """Add up reports. Pure. Raises `KeyError` where something is not in one."""
    total = Total()
    for report in reports:
        total.runs.append(report["command"])
        total.seeds.append(report["seed"])
        total.failed += [] if report["passed"] else [report["command"]]
        total.seconds += report["seconds"]
        total.injected.update(report["injected"])
        total.happened.update(report["happened"])
        total.compared.update(report["compared"])
        total.wrong.update(report["wrong"])
        total.audited.update(report["audited"])
        for judge, counts in report["qlib"].items():
            total.qlib.setdefault(judge, Counter()).update(counts)
        others = {"processes that died by themselves": len(report["deaths"]), "not healed": len(report["unhealed"])}
        total.others.update({**others, "dead letters": report["dead_letters"]})
    return total


def read_reports(files: Iterable[Path]) -> Total:
    """Read and add up. Raises `BadReportError`."""
    reports = []
    for path in files:
        try:
            reports.append(json.loads(path.read_text()))
            add_up(reports[-1:])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadReportError(f"{path}: {error!r}") from error
    return add_up(reports)


def show(total: Total) -> None:
    """Print the sums."""
    faults = Table(title="faults", title_justify="left")
    for name in ("kind", "injected", "happened"):
        faults.add_column(name, justify="left" if name == "kind" else "right")
    for kind in sorted(total.injected):
        faults.add_row(kind, f"{total.injected[kind]:,}", f"{total.happened[kind]:,}")
    faults.add_section()
    faults.add_row("all", f"{total.injected.total():,}", f"{total.happened.total():,}")
    console.print(faults)
    counts = Table(title="stored against true", title_justify="left")
    counts.add_column("")
    counts.add_column("count", justify="right")
    sums = [
        total.compared,
        total.wrong,
        *({f"Qlib by {j}: {n}": c for n, c in q.items()} for j, q in total.qlib.items()),
    ]
    sums += [{f"audit: {name}": count for name, count in total.audited.items()}, total.others]
    for part in sums:
        for name, count in part.items():
            counts.add_row(name, f"{count:,}")
        counts.add_section()
    console.print(counts)
    for command in total.runs:
        console.print(command, markup=False, soft_wrap=True)
    console.print(f"{len(total.runs)} runs, {len(set(total.seeds))} seeds, {total.seconds / 60:.0f} minutes")


def main(
    files: Annotated[list[Path], typer.Argument(help="What the runs wrote with --report")],
    *,
    faults: Annotated[int, typer.Option(min=0, help="Faults that must have taken place")] = 0,
    candles: Annotated[int, typer.Option(min=0, help="Candles that must have been compared")] = 0,
    each: Annotated[int, typer.Option(min=0, help="How often each kind must have taken place")] = 0,
) -> None:
    """Add up the reports of several chaos runs: exit code 0 if all of them passed, and prove as much as is asked."""
    try:
        total = read_reports(files)
    except BadReportError as error:
        console.print(f"[red]no report:[/red] {escape(str(error))}", soft_wrap=True)
        raise SystemExit(2) from None
    show(total)
    lacking = total.lacking(faults=faults, candles=candles, each=each)
    for reason in lacking:
        console.print(reason, markup=False, soft_wrap=True)
    console.print("[red]NOT PROVED[/red]: see above" if lacking else "[green]no difference[/green]")
    raise SystemExit(1 if lacking else 0)


if __name__ == "__main__":
    run(main)
