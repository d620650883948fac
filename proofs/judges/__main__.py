"""`python -m proofs.judges --data okx_data`: three judges of the Qlib dataset; none shares code with the converter.

values      every field at every frequency, computed once more with pandas from the raw Parquet files
look-ahead  the raw data cut at many instants T, converted from nothing: up to T nothing may change, bit for bit
dump_bin    Qlib's own script on the same values: the same bytes (with --qlib-checkout), and what both took
"""

import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from proofs.judges.bins import FREQUENCIES, UnreadableDatasetError, read_calendar
from proofs.judges.dump_bin import Peer, PeerError, judge_against_dump_bin, ratio
from proofs.judges.lookahead import CutError, cut_raw, instants, judge_cut
from proofs.judges.recompute import Options, Raw, RawError
from proofs.judges.tally import Judgement, ValueTally
from proofs.judges.values import OnProgress, judge_values, label
from proofs.rig.conversion import ProcessFailedError, convert
from proofs.rig.raw_from_recording import write_recording
from proofs.rig.recording import UnusableRecordingError
from proofs.units import MINUTE_MS
from shared.runtime.command import run

FOLDER = Path(".run/judge")

console = Console()


class UnusableFolderError(Exception):
    """The folder for the judges' work cannot be used; the text says why."""


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[OnProgress]:
    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda text: bar.update(task, advance=1, description=f"{what}: {text}")


def judge_lookahead(
    raw: Raw, qlib_dir: Path, work: Path, *, settings: Mapping[str, str], cuts: int, seed: int, on_progress: OnProgress
) -> tuple[Judgement, list[dict[str, Any]]]:
    """Cut at many instants, convert each cut from nothing, and compare. Returns the counts of all, and of each."""
    until = int(read_calendar(qlib_dir, "1min")[-1]) + MINUTE_MS
    total, each = Judgement(), []
    for instant, kind in instants(raw, until, cuts, seed):
        on_progress(f"{label(instant)} {kind}")
        folder = _emptied(work / "cut")
        cut_raw(raw.root, folder / "okx_data", instant)
        convert(folder / "okx_data", folder / "qlib", settings)
        found = judge_cut(qlib_dir, folder / "qlib", folder / "okx_data", instant)
        each.append({"instant": instant, "kind": kind, "compared": found.total.compared, "clean": found.clean})
        total.add(found)
        shutil.rmtree(folder)
    return total, each


def _emptied(folder: Path) -> Path:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


# --- Output


def _show(title: str, found: Judgement) -> None:
    """Print the counts by frequency, every field that has a difference, and the problems."""
    table = Table(title=title, title_justify="left", box=None)
    columns = tuple(ValueTally().counts())
    for column in ("frequency", *columns):
        justify: Literal["left", "right"] = "left" if column == "frequency" else "right"
        table.add_column(column.replace("_", " "), justify=justify, no_wrap=True, min_width=len(column))
    for frequency in FREQUENCIES:
        of_frequency = Judgement({key: tally for key, tally in found.tallies.items() if key[0] == frequency}).total
        table.add_row(frequency, *(f"{count:,}" for count in of_frequency.counts().values()))
    table.add_row("all", *(f"{count:,}" for count in found.total.counts().values()))
    console.print(table)
    for (frequency, name), tally in sorted(found.tallies.items()):
        if tally.faults:
            counts_text = f"{tally.different:,} different, {tally.missing:,} missing, {tally.invented:,} invented"
            console.print(f"[red]{name} {frequency}[/red]: {counts_text}; first: {escape(tally.first)}")
    for problem in found.problems:
        console.print(f"[red]{escape(problem)}[/red]")
    if found.problem_count > len(found.problems):
        console.print(f"... and {found.problem_count - len(found.problems):,} more")
    console.print("[green]clean[/green]" if found.clean else "[red]NOT CLEAN[/red]")


def _show_peer(peer: Peer) -> None:
    _show("dump_bin: bit for bit", peer.judgement)
    files = peer.identical_files + peer.different_files
    console.print(
        f"{peer.identical_files:,} of {files:,} files identical, {peer.bytes_compared / 1e6:,.1f} MB compared"
    )
    for name, cost in (
        ("converter --rebuild", peer.converter),
        ("dump_all, CSV, 16 workers", peer.dump_bin_csv),
        ("dump_all, Parquet, 2 workers", peer.dump_bin),
        ("the same and making its input", peer.dump_bin + peer.inputs),
    ):
        times = ratio(cost, peer.converter)
        text = f"{cost.wall_seconds:8.1f} s wall {cost.cpu_seconds:8.1f} s CPU"
        console.print(f"{name:<30} {text} {times['wall']:6.1f} x wall {times['cpu']:6.1f} x CPU", soft_wrap=True)


def _counts_of(tally: ValueTally) -> dict[str, Any]:
    return tally.counts() | {"first": tally.first}


def _as_json(found: Judgement) -> dict[str, Any]:
    tallies = sorted(found.tallies.items())
    return {
        "clean": found.clean,
        "total": _counts_of(found.total),
        "problems": found.problems,
        "problem_count": found.problem_count,
        "fields": {f"{name} {frequency}": _counts_of(tally) for (frequency, name), tally in tallies},
    }


# --- The command


def judge(
    data_dir: Path, qlib_dir: Path | None, work: Path, *, checkout: Path | None, options: Options, cuts: int, seed: int
) -> dict[str, Any]:
    """Ask all judges; return the report."""
    settings = {
        "PARTIAL_BARS": "keep" if options.partial_bars else "nan",
        "STOCK_FIELDS": str(options.stock_fields).lower(),
    }
    report: dict[str, Any] = {"data": str(data_dir), "seed": seed}
    if qlib_dir is None:
        qlib_dir = work / "qlib"
        with _progress("converting", None):
            report["conversion"] = asdict(convert(data_dir, qlib_dir, settings))
    raw, began = Raw(data_dir), time.monotonic()
    with _progress("values", len(raw.candle_files)) as on_progress:
        values = judge_values(raw, qlib_dir, options, on_progress)
    _show("values: recomputed with pandas", values)
    report["values"] = _as_json(values) | {"seconds": round(time.monotonic() - began, 1)}
    if cuts:
        began = time.monotonic()
        with _progress("look-ahead", cuts) as on_progress:
            ahead, each = judge_lookahead(
                raw, qlib_dir, work, settings=settings, cuts=cuts, seed=seed, on_progress=on_progress
            )
        _show(f"look-ahead: {len(each)} cuts, bit for bit", ahead)
        report["lookahead"] = _as_json(ahead) | {"cuts": each, "seconds": round(time.monotonic() - began, 1)}
    if checkout is not None:
        with _progress("dump_bin", 1 + len(FREQUENCIES)) as on_progress:
            peer = judge_against_dump_bin(
                data_dir,
                checkout,
                _emptied(work / "peer"),
                options=options,
                settings=settings,
                on_progress=on_progress,
            )
        _show_peer(peer)
        report["dump_bin"] = _as_json(peer.judgement) | {
            "clean": peer.clean,
            "identical_files": peer.identical_files,
            "different_files": peer.different_files,
            "bytes": peer.bytes_compared,
            "converter": asdict(peer.converter),
            "dump_all": asdict(peer.dump_bin),
            "dump_all_csv": asdict(peer.dump_bin_csv),
            "making_its_input": asdict(peer.inputs),
            "ratio": ratio(peer.dump_bin, peer.converter),
        }
    report["clean"] = all(report[name]["clean"] for name in ("values", "lookahead", "dump_bin") if name in report)
    return report


_ERRORS = (
    CutError,
    PeerError,
    ProcessFailedError,
    RawError,
    UnreadableDatasetError,
    UnusableFolderError,
    UnusableRecordingError,
)


def main(
    *,
    data: Annotated[Path | None, typer.Option(help="Raw folder (DATA_DIR)")] = None,
    recording: Annotated[Path | None, typer.Option(help="Make the raw folder of this recording instead")] = None,
    qlib: Annotated[
        Path | None, typer.Option(help="Judge this dataset; else the raw folder is converted first")
    ] = None,
    qlib_checkout: Annotated[
        Path | None, typer.Option(help="A checkout of microsoft/qlib, for its dump_bin.py")
    ] = None,
    cuts: Annotated[int, typer.Option(min=0, help="At how many instants to cut for the look-ahead judge")] = 20,
    seed: Annotated[int, typer.Option(help="Another one, other instants")] = 1,
    work: Annotated[Path, typer.Option(help="Folder for what is made meanwhile; emptied before and after")] = FOLDER,
    partial_bars: Annotated[bool, typer.Option("--partial-bars", help="As with PARTIAL_BARS=keep")] = False,
    stock_fields: Annotated[bool, typer.Option("--stock-fields", help="As with STOCK_FIELDS=true")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave what was made in its folder")] = False,
    report_to: Annotated[Path | None, typer.Option("--json", help="Write the whole report there")] = None,
) -> None:
    """Judge a Qlib dataset by its raw data; the exit code is 1 where anything differs."""
    if (data is None) == (recording is None):
        console.print("give either --data or --recording")
        sys.exit(2)
    try:
        _emptied_work(work)
        if recording is not None:
            data = work / "okx_data"
            write_recording(recording, data)
        assert data is not None  # noqa: S101 - one of the two is given
        options = Options(partial_bars=partial_bars, stock_fields=stock_fields)
        report = judge(data, qlib, work, checkout=qlib_checkout, options=options, cuts=cuts, seed=seed)
    except _ERRORS as error:
        console.print(f"[red]{escape(str(error))}[/red]")
        sys.exit(1)
    if report_to is not None:
        report_to.write_text(json.dumps(report, indent=1), encoding="utf-8")
    if not keep:
        shutil.rmtree(work)
    sys.exit(0 if report["clean"] else 1)


_MARK = ".made-by-judge-dataset"


def _emptied_work(work: Path) -> None:
    """Empty the folder to work in; one that holds anything that is not ours is left alone."""
    if work.exists() and any(work.iterdir()) and not (work / _MARK).exists():
        raise UnusableFolderError(f"{work} holds something else; give an empty folder with --work")
    (_emptied(work) / _MARK).touch()


if __name__ == "__main__":
    run(main)
