"""Deadlines that follow what the machine can do: where more wants to run than it has processors, all takes longer."""

import os
import time


def patience(seconds: float) -> float:
    """Return how long to wait now for what takes so many seconds, at most, on a machine with nothing else to do."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.process_cpu_count() or 1))


class Deadline:
    """So many seconds from now, and longer should the machine become busy meanwhile."""

    def __init__(self, seconds: float) -> None:
        self._began, self._seconds = time.monotonic(), seconds

    @property
    def has_passed(self) -> bool:
        """Whether what is waited for should have happened by now."""
        return time.monotonic() - self._began > patience(self._seconds)
