"""Which instrument a name stood for when: its lives, from the definitions that the exchange gave of it. Pure.

A name can be given to another asset, come back after years, or stand for another amount of the asset after a
redenomination. What was known, held or carried over in one life says nothing in the next.

Instants are Unix ms.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from shared.events import ENDED_STATE
from shared.grid import MINUTE_MS

REBASE = "rebase"
"""State in which OKX redenominates: nothing is traded, and afterwards a price is that of another amount."""
_NOT_YET_TRADED = {"", "preopen", "test"}
LONG_AGO = -(1 << 62)
"""Begin of a life of which it is not known when it was listed."""


class Said(NamedTuple):
    """What one definition says, as far as lives follow from it."""

    known: int
    state: str
    listed: int | None
    ended: int | None
    contract_value: float | None


@dataclass
class Life:
    """One instrument under a name: [begin, end); end is None as long as it is not over."""

    begin: int
    end: int | None = None
    traded: int | None = None
    """When it was known to be traded, the last time."""


def lives_of(definitions: Iterable[Said]) -> list[Life]:
    """Return the lives of a name, in order of time.

    Another life begins where an instrument is said to be listed later than one under this name was known to be traded,
    and with every redenomination. An announced listing may be moved: that is the same life.
    """
    lives: list[Life] = []
    state = ""
    for said in sorted(definitions, key=_known):
        if not lives:
            lives.append(Life(_begin(said)))
        life = lives[-1]
        if said.state == REBASE != state:
            life.end = said.known
            lives.append(Life(_floor(said.known)))
        elif said.listed is not None and life.traded is not None and said.listed > life.traded:
            life.end = min(life.end or said.listed, said.listed)
            lives.append(Life(_begin(said)))
        elif life.traded is None and said.listed is not None:
            life.begin = _begin(said)
        _note(lives[-1], said)
        state = said.state
    for one, other in pairwise(lives):
        other.begin = max(one.begin, other.begin)
        one.end = other.begin if one.end is None else min(one.end, other.begin)
    return lives


def _known(said: Said) -> int:
    return said.known


def _note(life: Life, said: Said) -> None:
    if said.state == ENDED_STATE:
        life.end = said.known if said.ended is None else min(said.ended, said.known)
        return
    life.end = None
    if said.state not in _NOT_YET_TRADED:
        life.traded = said.known


def _begin(said: Said) -> int:
    """Return when an instrument was listed: what is traded has been by then."""
    if said.listed is None:
        return LONG_AGO
    return _floor(said.listed if said.state in _NOT_YET_TRADED else min(said.listed, said.known))


def _floor(instant: int) -> int:
    return instant // MINUTE_MS * MINUTE_MS


def contract_values(definitions: Iterable[Said]) -> Sequence[tuple[int, float]]:
    """Return what one contract was worth from when on, as it became known; said again in each life.

    During a redenomination the old value is still given, and the new life has begun: that is not its value.
    """
    ordered = [said for said in sorted(definitions, key=_known) if said.state != REBASE]
    return [(said.known, said.contract_value) for said in ordered if said.contract_value is not None]
