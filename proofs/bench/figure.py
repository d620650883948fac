"""What a benchmark has measured, as data: one figure a line, beside its peer and its floor. Pure."""

from dataclasses import dataclass


class NotMeasuredError(Exception):
    """There is no figure: what was measured is wrong, or something that it needs is not here. The text says why."""


@dataclass(frozen=True)
class Beside:
    """The same work as something else does it, measured in the same run and in the same unit."""

    amount: float
    by: str
    """Who or what does it."""


@dataclass(frozen=True)
class Figure:
    """What a piece of work costs, or how much of it is done in a second."""

    work: str
    ours: float
    unit: str
    """As it is read behind a number: "s of CPU", "MB", "a second"."""
    peer: Beside | None = None
    """What others have that does the same."""
    floor: Beside | None = None
    """The least that the work can take: the same input and output, and nothing in between."""
    is_rate: bool = False
    """Whether more is better."""

    def times(self, other: Beside | None) -> float | None:
        """Return how many times the cost of another one ours is; None where there is none, or it cost nothing."""
        if other is None or not self.ours or not other.amount:
            return None
        return other.amount / self.ours if self.is_rate else self.ours / other.amount
