"""What is done to a running system and when, as a pure function of the seed.

Faults of the host (processes, Redis, disk, files) are ours. Those of the wire and of the exchange are the simulator's
own chaos: its kinds are read from its table, so that a new one takes part by itself.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from launch.stack import SERVICES
from services.simulator.faults import KINDS

KILLS = tuple(f"kill {service}" for service in SERVICES)
"""kill -9; supervisord starts it again."""
STOPS = tuple(f"stop {service}" for service in SERVICES)
"""SIGSTOP, and SIGCONT some seconds later."""
REDIS = ("redis killed", "redis stopped", "redis emptied")
"""kill -9 with the AOF kept; SIGSTOP for some seconds; a Redis that comes back without its AOF."""
DISK = ("disk full",)
FILES = ("file damaged",)
HOST = (*KILLS, *STOPS, *REDIS, *DISK, *FILES)
WIRE = tuple(KINDS)

_SHORT_STOP, _LONG_STOP, _LONG_SHARE = (0.5, 4.0), (8.0, 20.0), 0.15
"""Most stops are shorter than any time-out; some outlast a heartbeat, a ping and a socket's patience."""
_LAST_SHARE = 0.97
"""Nothing new happens in the last moments: what was begun must be able to end before the healing."""


@dataclass(frozen=True)
class Strike:
    """One fault of the host that is to be."""

    at: float
    """Wall seconds since the chaos began."""
    kind: str
    seconds: float = 0.0
    """How long it lasts, where it lasts."""
    pick: float = 0.0
    """In [0, 1): chooses among what is there when it happens, such as files."""


def schedule(seed: int, seconds: float, rate: float, kinds: Sequence[str]) -> list[Strike]:
    """Return the strikes of a run, in order. The same arguments give the same strikes.

    The kinds come in shuffled rounds, each once a round, so that none is forgotten however short the run; the
    distances between strikes are those of chance, `rate` a second on average.
    """
    dice = random.Random(f"chaos {seed}")
    strikes: list[Strike] = []
    hand: list[str] = []
    at = 0.0
    while kinds and (at := at + dice.expovariate(rate)) < seconds * _LAST_SHARE:
        hand = hand or dice.sample(list(kinds), len(kinds))
        lasts = dice.uniform(*(_LONG_STOP if dice.random() < _LONG_SHARE else _SHORT_STOP))
        strikes.append(Strike(round(at, 3), hand.pop(), round(lasts, 3), dice.random()))
    return strikes


def chosen_kinds(only: str, without: str) -> tuple[str, ...]:
    """Return the kinds that take part, by words in their names with commas between. Pure."""
    wanted, unwanted = ([word.strip() for word in text.split(",") if word.strip()] for text in (only, without))
    return tuple(
        kind
        for kind in (*HOST, *WIRE)
        if (not wanted or any(word in kind for word in wanted)) and not any(word in kind for word in unwanted)
    )


def wire_arguments(seed: int, rate: float, kinds: Sequence[str]) -> list[str]:
    """Return what makes the simulator do its part: `rate` faults a second of wall time, of these kinds alone. Pure."""
    if not set(kinds) & set(WIRE):
        return []
    arguments = ["--chaos", str(seed), "--chaos-wall", "--rate", f"{60 * rate:.6g}"]
    return arguments + [part for kind in WIRE if kind not in kinds for part in ("--chaos-without", kind)]


def shares(rate: float, kinds: Sequence[str]) -> tuple[float, float]:
    """Return how many faults a second fall to the host and to the wire, so that each kind comes as often. Pure."""
    host = sum(kind in HOST for kind in kinds)
    return rate * host / max(1, len(kinds)), rate * (len(kinds) - host) / max(1, len(kinds))
