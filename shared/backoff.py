"""How long to wait before trying again: capped, jittered, for ever. Pure."""

import random


def backoff_seconds(attempt: int, *, first: float = 0.5, cap: float = 15.0, roll: float | None = None) -> float:
    """Return the wait before try number `attempt` (0 is the first repetition).

    Doubles from `first` to `cap`; times a factor in [0.7, 1.3], so that a crowd does not come back in step. `roll` in
    [0, 1) replaces the dice.
    """
    dice = random.random() if roll is None else roll
    return float(min(cap, first * 2 ** min(attempt, 30)) * (0.7 + 0.6 * dice))
