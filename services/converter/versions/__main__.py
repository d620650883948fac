"""`python -m services.converter.versions`: list, freeze, verify, show, swap and delete versions of the dataset."""

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from services.converter.qlib.frequencies import FREQUENCIES
from services.converter.qlib.store import QlibStore
from services.converter.settings import ConverterSettings
from services.converter.versions.changing import changing
from services.converter.versions.findings import Findings
from services.converter.versions.snapshots import take_snapshot
from services.converter.versions.verify import verify
from services.converter.versions.versions import SNAPSHOT_FILE, VersionEntry, VersionError, Versions, size_of
from shared.runtime.exit_codes import ExitCode
from shared.runtime.settings import read_settings
from shared.storage.files import BusyError

_PATIENCE_SECONDS = 600.0
"""A conversion takes seconds, a rebuild of years takes minutes."""
_SHOWN = 200
"""Differences that are named one by one: more of them have the same cause."""

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Versions and snapshots of the Qlib dataset under QLIB_DIR.",
)
out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)

Patience = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for a converter that is at work")]
Name = Annotated[str, typer.Argument(help="Name of a snapshot")]


@app.command("list")
def list_versions() -> None:
    """Show all versions and snapshots: what the converter writes is the head, what readers see is live."""
    versions = _existing()
    table = Table(box=None, pad_edge=False)
    for title in ("name", "kind", "from", "to", "symbols", "size", ""):
        table.add_column(title, no_wrap=title != "name", overflow="fold")
    for entry in versions.entries():
        table.add_row(*_row(versions, entry))
    out.print(table)


def _row(versions: Versions, entry: VersionEntry) -> tuple[str, ...]:
    store = QlibStore(entry.path)
    calendar = store.calendar(FREQUENCIES[0])
    first, last = (calendar[0], store.last_label(FREQUENCIES[0])) if calendar else (None, "-")
    kind = "snapshot" if entry.is_snapshot else "in place" if versions.in_place else "version"
    read = "pinned" if entry.is_read and versions.pinned else "live" if entry.is_read else ""
    marks = ", ".join(mark for mark in ("head" if entry.is_head else "", read) if mark)
    began = f"{first:%Y-%m-%d}" if first else "-"
    return (
        entry.name,
        kind,
        began,
        last.removesuffix(":00"),
        str(len(store.symbols())),
        decimal(size_of(entry.path)),
        marks,
    )


@app.command()
def snapshot(name: Name, wait: Patience = _PATIENCE_SECONDS) -> None:
    """Freeze the head under a name, beside the live dataset, with a manifest."""
    qlib_dir = _existing().name
    with _errors_reported(), _progress() as progress:
        folder, manifest = take_snapshot(
            qlib_dir, name, created=datetime.now(UTC), patience_seconds=wait, waits=_waits, progress=progress
        )
    size = sum(file.size for file in manifest.files.values())
    out.print(
        f"{folder}: {len(manifest.symbols)} symbols, coverage {manifest.coverage:.4%}, {len(manifest.files)} files, "
        f"{decimal(size)}",
        markup=False,
    )
    out.print(f"manifest: {folder / SNAPSHOT_FILE}", markup=False)


@app.command("verify")
def verify_version(
    name: Annotated[
        str | None, typer.Argument(help="A version, a snapshot or head; by default what readers see")
    ] = None,
    wait: Patience = _PATIENCE_SECONDS,
) -> None:
    """Check a snapshot against its manifest, and any version for consistency.

    Ends with 0 where all is well, 1 where something differs, 3 where nothing can be verified.
    """
    versions = _existing()
    with _errors_reported(ExitCode.NOT_AVAILABLE), ExitStack() as held:
        if not versions.is_snapshot(versions.find(name)):
            _keep_converter_out(held, versions.name, wait)
        folder = versions.find(name)  # again: the head may have been swapped while its lock was waited for
        with _progress() as progress:
            found = verify(folder, frozen=versions.is_snapshot(folder), progress=progress)
    _print_findings(folder, found)
    sys.exit(ExitCode.FINDING if found.differences else ExitCode.FINE)


def _keep_converter_out(held: ExitStack, qlib_dir: Path, wait: float) -> None:
    """Hold the lock, where there can be one: on a read-only mount there cannot."""
    try:
        held.enter_context(changing(qlib_dir, patience_seconds=wait, waits=_waits))
    except OSError as error:
        if error.errno not in {errno.EROFS, errno.EACCES, errno.EPERM}:
            raise
        err.print("read-only here: what a converter writes meanwhile may look like a difference")


def _print_findings(folder: Path, found: Findings) -> None:
    for difference in found.differences[:_SHOWN]:
        where = f" ({difference.where})" if difference.where else ""
        times = f", {difference.count:,} times" if difference.count > 1 else ""
        out.print(f"{difference.file}: {difference.what}{times}{where}", markup=False)
    if len(found.differences) > _SHOWN:
        out.print(f"and {len(found.differences) - _SHOWN:,} more")
    for note in found.notes:
        out.print(f"note: {note}", markup=False)
    verdict = f"{len(found.differences):,} differences" if found.differences else "no difference"
    out.print(f"{folder}: {found.files:,} files, {found.values:,} values: {verdict}", markup=False)


@app.command()
def pin(name: Name, wait: Patience = _PATIENCE_SECONDS) -> None:
    """Let readers see a snapshot; the converter goes on with the head."""
    with _errors_reported(), changing(_existing().name, patience_seconds=wait, waits=_waits) as versions:
        versions.pin(name)
        out.print(f"{versions.name} shows {name}; the converter goes on with {versions.head.name}", markup=False)


@app.command()
def unpin(wait: Patience = _PATIENCE_SECONDS) -> None:
    """Let readers see the head again."""
    with _errors_reported(), changing(_existing().name, patience_seconds=wait, waits=_waits) as versions:
        pinned = versions.unpin()
        before = "nothing was pinned" if pinned is None else f"{pinned} is no longer shown"
        out.print(f"{before}: {versions.name} shows the head, {versions.head.name}", markup=False)


@app.command()
def rollback(
    name: Annotated[str | None, typer.Argument(help="A version; by default the one before the head")] = None,
    wait: Patience = _PATIENCE_SECONDS,
) -> None:
    """Make the version before the head the head again; the next conversion brings it up to date.

    What it leaves stays until it is deleted by hand: it may hold days of which there is no raw file any more.
    """
    with _errors_reported(), changing(_existing().name, patience_seconds=wait, waits=_waits) as versions:
        before = versions.head.name
        out.print(f"the head was {before} and is {versions.rollback(name)}; {before} is kept", markup=False)


@app.command()
def prune(
    keep: Annotated[int, typer.Option(min=0, help="How many of the versions before the head to keep")] = 1,
    snapshots: Annotated[
        bool, typer.Option("--snapshots", help="Also snapshots, but for as many of the newest")
    ] = False,
    wait: Patience = _PATIENCE_SECONDS,
) -> None:
    """Delete old versions: never the head, what came after it, or what readers see; snapshots only with --snapshots.

    A reader that began before a version was swapped out still reads there: it fails once that version is deleted.
    """
    with _errors_reported(), changing(_existing().name, patience_seconds=wait, waits=_waits) as versions:
        deleted = versions.prune(keep, snapshots=snapshots)
    for name, size in deleted:
        out.print(f"deleted {name}: {size:,} bytes", markup=False)
    out.print(f"{len(deleted)} deleted, {decimal(sum(size for _, size in deleted))} freed")


# --- What the commands share


def _existing() -> Versions:
    """Return the versions under QLIB_DIR; end where there is no dataset: a command must not begin one."""
    with _errors_reported(ExitCode.NOT_AVAILABLE):
        versions = Versions.of(read_settings(ConverterSettings).qlib_dir)
        if not versions.exists:
            raise VersionError(f"{versions.name}: there is no dataset yet; the converter makes it")
        return versions


@contextmanager
def _errors_reported(code: ExitCode = ExitCode.FINDING) -> Iterator[None]:
    try:
        yield
    except (BusyError, OSError, ValueError) as error:
        err.print(str(error), markup=False)
        sys.exit(code)


def _waits() -> None:
    err.print("waiting for the converter, which is at work ...")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    columns = (TextColumn("{task.description:>16}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


if __name__ == "__main__":
    app()
