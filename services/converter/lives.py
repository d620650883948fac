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
    """One definition of an instrument, as far as lives follow from it."""

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
    """It cannot have begun before: the end of the life before it, where one was given."""


def lives_of(definitions: Iterable[Definition]) -> list[Life]:
    """Return the lives of a name, in order of time.

    Another life begins where an instrument is listed later than one under this name was known to be traded,
    with every redenomination, and where one is back that was known to have ended. An announced listing may be moved:
    that is the same life.

    An end is stored once several observations, or the announced instant, have proven it. Where the list takes it back
    within `DOUBT_MS`, it was the list that lacked a row: nothing is listed again so soon without another listing time.
    Later the same listing time, or none, proves nothing: two lives taken for one would carry a position from the one
    to the other, one life taken for two merely begins again.
    """
    lives: list[Life] = []
    state = ""
    for definition in sorted(definitions, key=_known):
        if not lives:
            lives.append(Life(_begin(definition)))
        life = lives[-1]
        if definition.state == REBASE != state:
            life.end = definition.known if life.end is None else min(life.end, definition.known)
            lives.append(Life(_floor(definition.known)))
        elif life.traded is not None and (_is_listed_later(life, definition) or _is_back(life, definition)):
            after = LONG_AGO if life.over is None or life.end is None else life.end
            lives.append(Life(_begin(definition, after), after=after))
        elif life.traded is None and definition.listed is not None and definition.listed > life.after:
            life.begin = _begin(definition, life.after)
        _note(lives[-1], definition)
        state = definition.state
    for one, other in pairwise(lives):
        other.begin = max(one.begin, other.begin)
        one.end = other.begin if one.end is None else min(one.end, other.begin)
    return lives


def _known(definition: Definition) -> int:
    return definition.known


def _is_listed_later(life: Life, definition: Definition) -> bool:
    """Return whether a listing is given that is later than the last instant at which a life was traded."""
    return definition.listed is not None and life.traded is not None and definition.listed > life.traded


def _is_back(life: Life, definition: Definition) -> bool:
    """Return whether an instrument is there again beyond the doubt about the end of a life."""
    return life.over is not None and definition.state != ENDED_STATE and definition.known - life.over > DOUBT_MS


def _note(life: Life, definition: Definition) -> None:
    if definition.state == ENDED_STATE:
        life.end = definition.known if definition.ended is None else min(definition.ended, definition.known)
        life.over = definition.known if life.over is None else life.over
        return
    life.end = life.over = None
    if definition.state not in _NOT_YET_TRADED:
        life.traded = definition.known


def _begin(definition: Definition, after: int = LONG_AGO) -> int:
    """Return when an instrument was listed: what is traded has been by then.

    Where an end was given before, and no listing after it, it is the instant at which it was known to be back.
    """
    if definition.listed is None or definition.listed <= after:
        return LONG_AGO if after == LONG_AGO else _floor(definition.known)
    return _floor(
        definition.listed if definition.state in _NOT_YET_TRADED else min(definition.listed, definition.known)
    )


def _floor(instant: int) -> int:
    return instant // MINUTE_MS * MINUTE_MS


def contract_values(definitions: Iterable[Definition]) -> Sequence[tuple[int, float]]:
    """Return what one contract was worth from when on, as it became known; repeated in each life.

    During a redenomination the old value is still given, and the new life has begun: that is not its value.
    """
    ordered = [definition for definition in sorted(definitions, key=_known) if definition.state != REBASE]
    return [
        (definition.known, definition.contract_value) for definition in ordered if definition.contract_value is not None
    ]
