"""Schedules on the exchange's clock: APScheduler's triggers compute the instants, the exchange's clock decides when.

APScheduler's own loop sleeps until an instant of the host's clock, worked out hours ahead; a clock that is set or
runs at another rate meanwhile would make it fire early or late. Here the rest of the wait is computed again every few
seconds.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from shared.grid import EPOCH
from shared.runtime.service import Service

_RECHECK_SECONDS = 5.0


def every_hours(hours: int) -> BaseTrigger:
    """Fire every so many hours, counted from midnight UTC. Raises `ValueError` where they do not divide a day."""
    if 24 % hours:
        raise ValueError(f"{hours} hours do not divide a day")
    return CronTrigger(hour=",".join(map(str, range(0, 24, hours))), timezone=UTC)


def daily_at(hour: int, minute: int) -> BaseTrigger:
    """Fire once a UTC day."""
    return CronTrigger(hour=hour, minute=minute, timezone=UTC)


def every(interval: timedelta) -> BaseTrigger:
    """Fire at every multiple of an interval since the epoch."""
    return IntervalTrigger(seconds=int(interval.total_seconds()), start_date=EPOCH, timezone=UTC)


def next_due(trigger: BaseTrigger, previous: datetime | None, now: datetime) -> datetime | None:
    """Return the next instant to fire at. Of several that were missed only the last one counts. Pure.

    A clock that was measured again may be a little behind the instant that has just fired: it does not fire twice.
    """
    if previous is not None:
        now = max(now, previous + timedelta(microseconds=1))
    due: datetime | None = trigger.get_next_fire_time(previous, now)
    while due is not None:
        following = trigger.get_next_fire_time(due, now)
        if following is None or following > now:
            return due
        due = following
    return None


async def firings(trigger: BaseTrigger, service: Service) -> AsyncIterator[datetime]:
    """Yield each due instant when it comes on the exchange's clock; end when the service stops."""
    due = next_due(trigger, None, service.clock.now())
    while due is not None:
        while (remaining := service.clock.seconds_until(due)) > 0:
            if not await service.pause(min(remaining, _RECHECK_SECONDS)):
                return
        yield due
        due = next_due(trigger, due, service.clock.now())
