"""The 24/7 minute grid: pure arithmetic on instants, no clock."""

from datetime import UTC, date, datetime, timedelta

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
MINUTES_PER_DAY = 1440
MINUTE_MS = 60_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_DAY = date(2009, 1, 1)
"""There is no market of coins before."""
LAST_DAY = date(2099, 12, 30)
"""A dataset ends before the instant that stands for an open end in Qlib."""


def from_ms(milliseconds: int) -> datetime:
    """Return the instant of a Unix time in milliseconds, exactly."""
    return EPOCH + timedelta(milliseconds=milliseconds)


def to_ms(instant: datetime) -> int:
    """Return the Unix time in whole milliseconds (floor)."""
    return (instant - EPOCH) // timedelta(milliseconds=1)


def floor_minute(instant: datetime) -> datetime:
    """Return the start of the minute that the instant lies in."""
    return instant.replace(second=0, microsecond=0)


def ceil_minute(instant: datetime) -> datetime:
    """Return the first start of a minute at or after the instant."""
    floor = floor_minute(instant)
    return floor if floor == instant else floor + MINUTE


def day_start(day: date) -> datetime:
    """Return midnight UTC of a date."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def floor_hour(instant: datetime) -> datetime:
    """Return the full hour at or before an instant."""
    return instant.replace(minute=0, second=0, microsecond=0)


def floor_day(instant: datetime) -> datetime:
    """Return midnight UTC of the instant's day."""
    return day_start(instant.astimezone(UTC).date())


def minutes_between(begin: datetime, end: datetime) -> list[datetime]:
    """Return the opens of the minutes of [begin, end); `begin` lies on the grid."""
    return [begin + number * MINUTE for number in range(max(0, -((begin - end) // MINUTE)))]


def days_between(begin: datetime, end: datetime) -> list[date]:
    """Return every UTC date that [begin, end) touches."""
    days = []
    day = floor_day(begin)
    while day < end:
        days.append(day.date())
        day += DAY
    return days
