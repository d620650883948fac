"""The last rankings on disk: a Redis that forgets everything, and a ranker that starts again, lose none of them. I/O.

Who was in the universe until when is nowhere else, until the writer has stored it and the collector has published
what it wants.
"""

import hashlib
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path

import msgspec
import structlog

from shared.bus.bus import Bus
from shared.datasets.universe import Ranking
from shared.grid import to_ms
from shared.storage.files import replace_text
from shared.storage.layout import rankings_file

log = structlog.get_logger()

KEPT = 10
"""Rankings that are kept: days of them, unless the ranker starts again and again."""


def keep(folder: Path, ranking: Ranking) -> None:
    """Keep a ranking, whole and durably, behind those before it. Raises `OSError`."""
    rankings = msgspec.json.encode([*kept(folder, ranking.exchange), ranking][-KEPT:])
    content = msgspec.json.encode(_Kept(_digest(rankings), msgspec.Raw(rankings)))
    replace_text(rankings_file(folder, ranking.exchange), content.decode() + "\n")


class _Kept(msgspec.Struct):
    """What is in the file: the rankings, and the SHA-256 of their text."""

    sha256: str
    rankings: msgspec.Raw


def _digest(rankings: bytes) -> str:
    return hashlib.sha256(rankings).hexdigest()


def kept(folder: Path, exchange: str) -> list[Ranking]:
    """Return the rankings of an exchange that were kept, the last one last; nothing where none can be read."""
    try:
        return _read(rankings_file(folder, exchange).read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        log.warning("last rankings cannot be read, going on without them", error=str(error))
        return []


def _read(content: bytes) -> list[Ranking]:
    """Read the file; one of before there was a digest is a bare list. Raises `ValueError` where it is damaged."""
    if content.lstrip().startswith(b"["):
        return msgspec.json.decode(content, type=list[Ranking])
    kept = msgspec.json.decode(content, type=_Kept)
    if _digest(bytes(kept.rankings)) != kept.sha256:
        raise ValueError("the file of the last rankings is not what was written")
    return msgspec.json.decode(kept.rankings, type=list[Ranking])


PATIENCE_SECONDS = 60.0
"""How long the writer may take to store a ranking before it is published again."""


def not_stored(
    rankings: Sequence[Ranking], stored: Collection[datetime], published: dict[datetime, float], seconds: float
) -> list[Ranking]:
    """Return the rankings to publish again: published a while ago, and not on disk as far as Redis knows.

    A Redis that went back in time (an older file, a failover) has lost what came after, and says nothing of it. Copies
    have the same identity. published: ranked time → our monotonic seconds when it was published last; it is kept up.
    """
    lost, on_disk = [], {to_ms(at) for at in stored}  # a file holds milliseconds
    for ranking in rankings:
        if to_ms(ranking.ranked_time) in on_disk:
            published.pop(ranking.ranked_time, None)
        elif seconds - published.setdefault(ranking.ranked_time, seconds) >= PATIENCE_SECONDS:
            published[ranking.ranked_time] = seconds
            lost.append(ranking)
    return lost


async def publish_again(bus: Bus, rankings: list[Ranking]) -> None:
    """Publish rankings that Redis has forgotten; the last one is the universe. Copies have the same identity."""
    if rankings:
        await bus.create_groups()
        await bus.publish(rankings[:-1])
        await bus.set_universe(rankings[-1])
        log.warning("Redis had forgotten the universe, published again", rankings=len(rankings))
