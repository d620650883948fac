"""`python -m proofs.chaos --seed 1 --minutes 5`: one campaign, see `proofs.chaos`."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from cli.stack import StackError, clear, end_on_signals
from proofs.chaos.campaign import SETTLE_SECONDS, ChaosError, campaign
from proofs.chaos.console import console, show
from proofs.chaos.outcome import report
from proofs.chaos.plan import DISK, Plan
from proofs.judges.bins import UnreadableDatasetError
from proofs.judges.recorded_qlib import UnreadableQlibError
from proofs.rig.small_disk import NoSmallDiskError, SmallDisk
from shared.runtime.command import run

FOLDER = Path(".run/chaos")
DISK_BYTES = 4 << 30
"""Sparse: only what is written takes space."""


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
    names: Annotated[Path | None, typer.Option(exists=True, help="JSON list of names of swaps to add")] = None,
    report_file: Annotated[Path | None, typer.Option("--report", help="Write the outcome as JSON")] = None,
    folder: Annotated[Path, typer.Option(help="Where the run keeps its data and logs")] = FOLDER,
) -> None:
    """Let everything go wrong for some minutes; then compare every stored minute with the truth."""
    end_on_signals()
    began = time.monotonic()
    plan = Plan(
        seed, minutes, symbols, members or max(1, symbols * 5 // 6), speed, rate, backfill_days, settle, only, without
    )
    plan = replace(plan, names=names)
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
        outcome = campaign(plan, folder, disk)
    except (ChaosError, StackError, UnreadableDatasetError, UnreadableQlibError, OSError) as error:
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
