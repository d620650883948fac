"""`python -m services.writer.compact`: put every stored row into its day file now."""

import asyncio
import sys
from typing import Annotated

import typer
from rich.console import Console

from services.writer.disk.store import RawStore
from services.writer.settings import WriterSettings
from shared.bus.bus import Bus
from shared.bus.compaction import have_rows_merged
from shared.bus.connection import BusError, failure_of
from shared.runtime.command import run
from shared.runtime.exit_codes import ExitCode
from shared.runtime.settings import read_settings
from shared.storage.files import BusyError, exclusive, reason_of
from shared.storage.segments import segments_of


async def compact_now(settings: WriterSettings, seconds: float) -> ExitCode:
    """Merge the segments: by ourselves where no writer works on the folder, else through it; report it."""
    root, console = settings.data_dir, Console(stderr=True)
    if not root.is_dir():
        console.print(f"{root}: there is no such folder, so nothing is stored yet", markup=False)
        return ExitCode.NOT_AVAILABLE
    try:
        with exclusive(root / ".writer.lock", "a writer works on it"):
            waiting = len(segments_of(root))
            with console.status(f"merging {waiting:,} segments into day files"):
                found = await asyncio.to_thread(RawStore(root).recover)
    except BusyError:
        return await _through_writer(settings, console, seconds)
    except OSError as error:
        console.print(f"cannot merge: {reason_of(error)}", markup=False)
        return ExitCode.FINDING
    if found.lost:
        names = ", ".join(sorted(found.lost))
        console.print(f"segments of {names} could not be read and were put aside in _damaged; the others are merged")
        return ExitCode.FINDING
    console.print(f"{waiting:,} segments merged; {root} holds day files only")
    return ExitCode.FINE


async def _through_writer(settings: WriterSettings, console: Console, seconds: float) -> ExitCode:
    bus = Bus(str(settings.redis_url))
    try:
        with console.status("the writer merges what it holds into day files"):
            done = await have_rows_merged(bus, seconds)
    except BusError as error:
        console.print(
            f"another process works on {settings.data_dir}, the writer or one more of this command; "
            f"it cannot be asked: Redis {failure_of(error)}",
            markup=False,
        )
        return ExitCode.NOT_AVAILABLE
    finally:
        await bus.close()
    said = "the day files hold what was stored when you asked" if done else f"the writer did not within {seconds:g} s"
    console.print(said)
    return ExitCode.FINE if done else ExitCode.FINDING


def main(
    seconds: Annotated[float, typer.Option("--wait", min=1, help="Longest time to wait for the writer, in s")] = 120.0,
) -> None:
    """Put every stored row into its day file now. The writer does it by itself every COMPACT_EVERY minutes."""
    sys.exit(asyncio.run(compact_now(read_settings(WriterSettings), seconds)))


if __name__ == "__main__":
    run(main)
