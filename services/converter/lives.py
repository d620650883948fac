"""Which instrument a name stood for when: its lives, from the definitions that the exchange gave of it. Pure.

A name can be given to another asset, come back after years, or stand for another amount of the asset after a
redenomination. What was known, held or carried over in one life says nothing in the next.

Instants are Unix ms.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from shared.datasets.instrument import ENDED_STATE
from shared.grid import MINUTE_MS

REBASE = "rebase"
"""State in which OKX redenominates: nothing is traded, and afterwards a price is that of another amount."""
_NOT_YET_TRADED = {"", "preopen", "test"}
LONG_AGO = -(1 << 62)
"""Begin of a life of which it is not known when it was listed."""
DOUBT_MS = 15 * MINUTE_MS
"""How long after an end became known it may be taken back."""


class Definition(NamedTuple):
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
    over: int | None = None
    """When it was known to have ended; None as long as it is not over."""
    after: int = LONG_AGO
    """It cannot have begun before: the end of the life before it, where that was said."""


def lives_of(definitions: Iterable[Definition]) -> list[Life]:
    """Return the lives of a name, in order of time.

    Another life begins where an instrument is said to be listed later than one under this name was known to be traded,
    with every redenomination, and where one is back that was known to have ended. An announced listing may be moved:
    that is the same life.

    An end is stored once several looks, or the announced instant, have proven it. Where the list takes it back within
    `DOUBT_MS`, it was the list that lacked a row: nothing is listed again so soon without another listing time. Later
    the same listing time, or none, proves nothing: two lives taken for one would carry a position from the one to the
    other, one life taken for two merely begins again.
    """
    lives: list[Life] = []
    state = ""
    for said in sorted(definitions, key=_known):
        if not lives:
            lives.append(Life(_begin(said)))
        life = lives[-1]
        if said.state == REBASE != state:
            life.end = said.known if life.end is None else min(life.end, said.known)
            lives.append(Life(_floor(said.known)))
        elif life.traded is not None and (_is_listed_later(life, said) or _is_back(life, said)):
            after = LONG_AGO if life.over is None or life.end is None else life.end
            lives.append(Life(_begin(said, after), after=after))
        elif life.traded is None and said.listed is not None and said.listed > life.after:
            life.begin = _begin(said, life.after)
        _note(lives[-1], said)
        state = said.state
    for one, other in pairwise(lives):
        other.begin = max(one.begin, other.begin)
        one.end = other.begin if one.end is None else min(one.end, other.begin)
    return lives


def _known(said: Definition) -> int:
    return said.known


def _is_listed_later(life: Life, said: Definition) -> bool:
    """Return whether an instrument is said to be listed later than that of a life was traded."""
    return said.listed is not None and life.traded is not None and said.listed > life.traded


def _is_back(life: Life, said: Definition) -> bool:
    """Return whether an instrument is there again beyond the doubt about the end of a life."""
    return life.over is not None and said.state != ENDED_STATE and said.known - life.over > DOUBT_MS


def _note(life: Life, said: Definition) -> None:
    if said.state == ENDED_STATE:
        life.end = said.known if said.ended is None else min(said.ended, said.known)
        life.over = said.known if life.over is None else life.over
        return
    life.end = life.over = None
    if said.state not in _NOT_YET_TRADED:
        life.traded = said.known


def _begin(said: Definition, after: int = LONG_AGO) -> int:
    """Return when an instrument was listed: what is traded has been by then.

    Where an end was said before, and no listing after it, it is the instant at which it was known to be back.
    """
    if said.listed is None or said.listed <= after:
        return LONG_AGO if after == LONG_AGO else _floor(said.known)
    return _floor(said.listed if said.state in _NOT_YET_TRADED else min(said.listed, said.known))


def _floor(instant: int) -> int:
    return instant // MINUTE_MS * MINUTE_MS


def contract_values(definitions: Iterable[Definition]) -> Sequence[tuple[int, float]]:
    """Return what one contract was worth from when on, as it became known; said again in each life.

    During a redenomination the old value is still given, and the new life has begun: that is not its value.
    """
    ordered = [said for said in sorted(definitions, key=_known) if said.state != REBASE]
    return [(said.known, said.contract_value) for said in ordered if said.contract_value is not None]
