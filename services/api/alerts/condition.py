"""What an alert rule finds: a condition in sentences, and what could not be evaluated."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["warning", "critical"]


@dataclass(frozen=True)
class Condition:
    """One thing that is wrong, in sentences for a person."""

    key: str
    """The same as long as the trouble is the same: "kind", or "kind:subject"."""
    severity: Severity
    what: str
    means: str
    """How bad it is: what the user lacks because of it."""
    doing: str
    """What the system does about it by itself."""
    todo: str = ""
    """What the user should do; empty: nothing."""
    lasted_seconds: float = 0.0
    """For how long it has lasted, on the host's clock, as far as the snapshot shows."""
    notify_after_seconds: float | None = None
    """How long it must last before it is notified; None: as the policy has it."""
    amount: float | None = None
    """How much of it there is. While the amount shrinks, the system recovers by itself."""


@dataclass(frozen=True)
class Thresholds:
    """From when on something is wrong."""

    symbol_minutes: int = 10
    """A member is stale whose newest candle is older than this, on the exchange's clock."""
    free_share: float = 0.10
    """Least free share of a disk."""
    memory_share: float = 0.80
    """Largest used share of Redis' memory limit. At the limit Redis refuses every write."""


@dataclass(frozen=True)
class Evaluation:
    """The conditions that hold, and those that could not be evaluated: they count neither as wrong nor as resolved."""

    conditions: tuple[Condition, ...]
    unknown: frozenset[str] = frozenset()
    """Keys, or their beginnings up to a colon, of conditions that could not be evaluated."""

    def knows(self, key: str) -> bool:
        """Return whether the absence of a condition means that it does not hold."""
        return not any(key == unknown or key.startswith(f"{unknown}:") for unknown in self.unknown)
