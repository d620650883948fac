"""Seeded chaos: one fault after another, of all kinds alike, as a pure function of the seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from msgspec.structs import replace

from services.simulator.engine.market import HOUR_MS
from services.simulator.faults.fault import Fault
from services.simulator.faults.kinds import KINDS, SUBSCRIBE_KINDS, resolved

PATIENCE_SECONDS = 120.0
"""Wall seconds that a fault of chaos waits for something to happen to."""
WALL_MINUTE_SECONDS = 60.0
NAMED_SHARE = 0.5
"""Of the faults of subscriptions, how many name an instrument: the others meet those that are subscribed first."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a schedule is made of."""

    seed: int
    rate: float
    """Faults a simulated hour, or a minute of wall time."""
    per: Literal["hour", "wall minute"]
    inst_ids: tuple[str, ...]
    kinds: tuple[str, ...] = tuple(KINDS)

    def spacing_ms(self, speed: float) -> float:
        """Return the simulated ms between two faults, on average."""
        return (HOUR_MS if self.per == "hour" else WALL_MINUTE_SECONDS * 1000 * speed) / self.rate


def schedule(recipe: Recipe, speed: float, begin_ms: int, end_ms: int) -> list[Fault]:
    """Return the faults that begin in [begin, end), in order; windows that follow each other make one schedule.

    Time is cut into equal slots with one fault somewhere in each, and the kinds come in shuffled rounds: so each kind
    comes equally often.
    """
    spacing = recipe.spacing_ms(speed)
    slots = range(int(begin_ms // spacing), int(end_ms // spacing) + 1)
    faults = (_fault(recipe, spacing, slot) for slot in slots)
    return [fault for fault in faults if begin_ms <= int(fault.at or 0) < end_ms]


def _fault(recipe: Recipe, spacing: float, slot: int) -> Fault:
    dice = Random(f"{recipe.seed}:{slot}")
    at_ms = int((slot + dice.random()) * spacing)
    turn, place = divmod(slot, len(recipe.kinds))
    kind = Random(f"{recipe.seed}:round:{turn}").sample(recipe.kinds, len(recipe.kinds))[place]
    fields: dict[str, Any] = KINDS[kind].chaos(dice)
    if "instId" in KINDS[kind].needs or (kind in SUBSCRIBE_KINDS and dice.random() < NAMED_SHARE):
        fields["inst_id"] = dice.choice(recipe.inst_ids)
    waiting = Fault(kind, at_ms, duration=PATIENCE_SECONDS, clock="wall")
    return resolved(replace(waiting, **fields))


class Chaos:
    """A schedule under way."""

    def __init__(self, recipe: Recipe, speed: float, begin_ms: int) -> None:
        self._recipe = recipe
        self._speed = speed
        self._until_ms = begin_ms
        self._stopped = False

    def due(self, now_ms: int) -> Sequence[Fault]:
        """Take the faults that have begun since the last time."""
        if self._stopped or now_ms < self._until_ms:
            return ()
        faults = schedule(self._recipe, self._speed, self._until_ms, now_ms + 1)
        self._until_ms = now_ms + 1
        return [replace(fault, at=now_ms) for fault in faults]

    def steer(self, now_ms: int, *, stop: bool) -> None:
        """Stop, or go on from now."""
        self._stopped = stop
        self._until_ms = max(self._until_ms, now_ms)

    def as_json(self) -> dict[str, Any]:
        """Return what is under way."""
        recipe = self._recipe
        return {"seed": recipe.seed, "rate": recipe.rate, "per": recipe.per, "stopped": self._stopped}
