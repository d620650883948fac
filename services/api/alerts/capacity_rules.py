"""Alert rules of memory and disks. Pure."""

from collections.abc import Iterable, Iterator

from services.api.alerts.condition import Condition, Thresholds
from services.api.disk import Space
from services.api.health.snapshot import Snapshot
from services.api.text import byte_size


def memory_conditions(snapshot: Snapshot, thresholds: Thresholds) -> Iterator[Condition]:
    """Yield whether Redis is about to be full."""
    memory = snapshot.memory
    if memory is not None and memory.limit and memory.used >= thresholds.memory_share * memory.limit:
        yield Condition(
            key="memory",
            severity="critical",
            what=f"Redis uses {byte_size(memory.used)} of its {byte_size(memory.limit)}",
            means="when it is full it refuses new candles; the collector then buffers them, or fetches them later",
            doing="streams are trimmed behind the slowest reader",
            todo="see /lag for the group that does not read; or raise maxmemory of Redis",
        )


def disk_conditions(spaces: Iterable[Space], thresholds: Thresholds) -> Iterator[Condition]:
    """Yield which disks are about to be full; folders that share a disk count once."""
    by_device: dict[int, list[Space]] = {}
    for space in spaces:
        by_device.setdefault(space.device, []).append(space)
    for shared in by_device.values():
        space, names = shared[0], " and ".join(space.folder for space in shared)
        if space.free_bytes < thresholds.free_share * space.total_bytes:
            yield Condition(
                key=f"disk:{shared[0].setting}",
                severity="critical",
                what=f"the disk of {names} has {byte_size(space.free_bytes)} of {byte_size(space.total_bytes)} left, "
                f"{space.free_bytes / space.total_bytes:.0%}",
                means="when it is full nothing more is stored",
                doing="days older than RETENTION_DAYS are deleted; on a full disk the writer waits and loses nothing",
                todo="free disk space, or lower RETENTION_DAYS",
            )
