"""`python -m proofs.bench`, `qlib-crypto bench`, `make bench`: measure everything, and write docs/performance.md."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from proofs.bench.document import Outcome, document, sentences_of, with_kept
from proofs.bench.machine import look_at, now
from proofs.bench.runner import BENCHMARKS, chosen, outcome_of
from proofs.rig.conversion import ROOT
from shared.runtime.command import run
from shared.runtime.exit_codes import ExitCode

PAGE = ROOT / "docs" / "performance.md"

console = Console()


def main(
    only: Annotated[
        list[str] | None, typer.Argument(help=f"Some of them instead of all: {', '.join(BENCHMARKS)}", metavar="NAME")
    ] = None,
    *,
    full: Annotated[bool, typer.Option("--full", help="In the sizes of real use, which takes much longer")] = False,
    qlib_checkout: Annotated[
        Path | None, typer.Option(help="A checkout of microsoft/qlib: the converter's peer is its dump_bin.py")
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Where the page goes; docs/performance.md, and nowhere if some are named")
    ] = None,
) -> None:
    """Measure what the work costs beside its peer and its floor, and write the page of figures.

    Ends with 1 where a benchmark could not be measured, or came to a wrong result; the others go on.
    """
    if unknown := set(only or []) - set(BENCHMARKS):
        raise typer.BadParameter(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    wanted = chosen(only or [], full=full)
    if qlib_checkout is not None and "convert" in wanted:
        wanted["convert"] = {**wanted["convert"], "qlib_checkout": str(qlib_checkout)}
    machine, begin, outcomes = look_at(ROOT), now(), list[Outcome]()
    for place, (name, options) in enumerate(wanted.items(), start=1):
        console.print(f"[{place}/{len(wanted)}] {name}", markup=False, style="bold")
        outcomes.append(outcome_of(name, options))
        show(outcomes[-1])
    target = page or (None if only else PAGE)
    if target is not None:
        before = target.read_text(encoding="utf-8") if target.exists() else ""
        text = document(outcomes, machine, begin, now(), full=full)
        target.write_text(with_kept(text, before), encoding="utf-8")
        console.print(f"written: {target}", markup=False, soft_wrap=True)
    sys.exit(ExitCode.FINDING if any(one.failure for one in outcomes) else ExitCode.FINE)


def show(outcome: Outcome) -> None:
    """Print what became of a benchmark."""
    if outcome.failure is not None:
        console.print(f"[red]{outcome.name}: not measured[/red]: {escape(outcome.failure)}", soft_wrap=True)
        return
    for work, measured in sentences_of(outcome):
        console.print(f"  {work}\n    {measured}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"  {outcome.seconds:.0f} s", style="dim")


if __name__ == "__main__":
    run(main)
