"""Lengths of time in milliseconds. The proofs have their own: no judge imports anything of the product. Pure."""

MINUTES_PER_DAY = 1440
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = MINUTES_PER_DAY * MINUTE_MS
