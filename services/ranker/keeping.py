"""The last rankings on disk: a Redis that forgets everything, and a ranker that starts anew, lose none of them. I/O.

Who was in the universe until when is nowhere else, until the writer has stored it and the collector has told the
ledger what it wants.
"""

from pathlib import Path

import msgspec
import structlog

from shared.bus import Bus
from shared.dataset import RANKINGS_FILE
from shared.durable import replace_text
from shared.events import Ranking

log = structlog.get_logger()

KEPT = 10
"""Rankings that are kept: days of them, unless the ranker starts again and again."""


def keep(folder: Path, ranking: Ranking) -> None:
    """Keep a ranking, whole and durably, behind those before it. Raises `OSError`."""
    rankings = [*kept(folder), ranking][-KEPT:]
    replace_text(folder / RANKINGS_FILE, msgspec.json.encode(rankings).decode() + "\n")


def kept(folder: Path) -> list[Ranking]:
    """Return the rankings that were kept, the last one last; nothing where there are none that can be read."""
    try:
        return msgspec.json.decode((folder / RANKINGS_FILE).read_bytes(), type=list[Ranking])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("last rankings cannot be read, going on without them", error=str(error))
        return []


async def publish_again(bus: Bus, rankings: list[Ranking]) -> None:
    """Publish rankings that Redis has forgotten; the last one is the universe. Copies have the same identity."""
    if rankings:
        await bus.create_groups()
        await bus.publish(rankings[:-1])
        await bus.set_universe(rankings[-1])
        log.warning("Redis had forgotten the universe, published again", rankings=len(rankings))
