"""What is done to a running system and when, as a pure function of the seed.

Faults of the host (processes, Redis, disk, files) are ours. Those of the wire and of the exchange are the simulator's
own chaos: its kinds are read from its table, so that a new one takes part by itself.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cli.stack import SERVICES
from services.simulator.faults.kinds import KINDS

KILLS = tuple(f"kill {service}" for service in SERVICES)
"""kill -9; supervisord starts it again."""
STOPS = tuple(f"stop {service}" for service in SERVICES)
"""SIGSTOP, and SIGCONT some seconds later."""
REDIS = ("redis killed", "redis stopped", "redis emptied")
"""kill -9 with the AOF kept; SIGSTOP for some seconds; a Redis that comes back without its AOF."""
DISK = ("disk full",)
FILES = ("file damaged", "segment damaged")
HOST = (*KILLS, *STOPS, *REDIS, *DISK, *FILES)
WIRE = tuple(KINDS)
"""All of the simulator's kinds, each as its table draws it for a chaos: so that it can heal.

What a script can do beside that is never drawn, since nothing could heal it, and the comparison would find it: prices
that cannot be *for good* (a minute refused for ever; those drawn are over before the collector has asked three times),
a price tenfold or a rate of 0.99 (believed, and stored, until an audit), a clock that lies for good, and
sizes beyond what this machine can hold.
"""

FAULT_LOG = "faults.jsonl"
"""Where the simulator writes down what it did, in the folder of the run."""
_START = datetime(2026, 3, 1, 5, 30, tzinfo=UTC)

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


@dataclass(frozen=True)
class Plan:
    """One campaign."""

    seed: int
    minutes: float
    symbols: int
    members: int
    speed: float
    rate: float
    backfill_days: int
    settle_seconds: float
    only: str = ""
    without: str = ""
    has_disk: bool = True
    names: Path | None = None
    """A file of names of swaps that are in the market beside the generated ones."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of faults that take part."""
        return tuple(kind for kind in chosen_kinds(self.only, self.without) if self.has_disk or kind not in DISK)

    @property
    def start(self) -> datetime:
        """Where the simulated time begins: at another minute of the day for each seed."""
        return _START + timedelta(minutes=self.seed * 61 % 1440)

    def market(self) -> list[str]:
        """Return the simulator's arguments."""
        sizes = ["--symbols", str(self.symbols), "--seed", str(self.seed)]
        pace = ["--speed", f"{self.speed:g}", "--start", self.start.isoformat()]
        faults = wire_arguments(self.seed, shares(self.rate, self.kinds)[1], self.kinds)
        names = ["--names", str(self.names.resolve())] if self.names is not None else []
        return [*sizes, *names, *pace, *faults, "--fault-log", FAULT_LOG]

    def strikes(self) -> list[Strike]:
        """Return the faults of the host."""
        kinds = [kind for kind in self.kinds if kind in HOST]
        return schedule(self.seed, 60 * self.minutes, shares(self.rate, self.kinds)[0], kinds)

    def settings(self) -> dict[str, str]:
        """Return the services' settings."""
        return {
            "TOP_N": str(self.members),
            "BACKFILL_DAYS": str(self.backfill_days),
            "RETENTION_DAYS": str(self.backfill_days + 60),
            "FLUSH_SECONDS": "1",
            "COMPACT_EVERY": "0.1",
            "CONVERT_EVERY": str(max(1, int(5 * self.speed))),
            "LOG_FORMAT": "json",
        }

    def command(self) -> str:
        """Return what repeats it."""
        return (
            f"make chaos SEED={self.seed} MINUTES={self.minutes:g} SYMBOLS={self.symbols} MEMBERS={self.members} "
            f"SPEED={self.speed:g} RATE={self.rate:g}"
            + "".join(
                f' {name}="{words}"'
                for name, words in (("ONLY", self.only), ("WITHOUT", self.without), ("NAMES", self.names))
                if words
            )
        )
