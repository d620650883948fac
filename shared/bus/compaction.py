"""Have the running writer put what is stored into the day files. I/O."""

import asyncio
import time

from shared.bus.bus import Bus

_LOOK_SECONDS = 0.2


async def have_rows_merged(bus: Bus, seconds: float) -> bool:
    """Ask the writer to merge what it holds; return whether it did within so many seconds. Raises `BusError`."""
    number, deadline = await bus.ask_for_compaction(), time.monotonic() + seconds
    while not await bus.is_compacted(number):
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(_LOOK_SECONDS)
    return True
