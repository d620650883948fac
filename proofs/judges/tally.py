"""What the judges count, and how two sequences of float32 values are compared. Pure.

There is one tally. A judge names its own counts by declaring them as fields of a subclass, each with its role.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, ClassVar, Self, get_origin, get_type_hints

import numpy as np

from proofs.judges.bins import Values

Place = Callable[[int], str]
"""Index of a value → its name, for people."""

_KEPT_PROBLEMS = 50


class Role(Enum):
    """What a count means for the verdict."""

    EVIDENCE = "evidence"
    SIZE = "size"
    FAULT = "fault"


Evidence = Annotated[int, Role.EVIDENCE]
"""What was compared. A judge that compared nothing has proved nothing."""
Size = Annotated[int, Role.SIZE]
"""Shown, without weight in the verdict."""
Fault = Annotated[int, Role.FAULT]
"""Must be 0."""


@dataclass
class Tally:
    """The counts of one comparison, in the order in which they are shown."""

    first: str = ""
    """The first difference, named."""
    roles: ClassVar[Mapping[str, Role]] = {}
    """The role of each count."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        hints = get_type_hints(cls, include_extras=True)
        cls.roles = {name: hint.__metadata__[0] for name, hint in hints.items() if get_origin(hint) is Annotated}

    def counts(self, *roles: Role) -> dict[str, int]:
        """Return the counts by name; with roles: those of these roles alone."""
        return {name: getattr(self, name) for name, role in self.roles.items() if not roles or role in roles}

    def note(self, difference: str) -> None:
        """Keep the first difference."""
        self.first = self.first or difference

    def add(self, other: Self) -> None:
        """Add the counts of another comparison."""
        for name, count in other.counts().items():
            setattr(self, name, getattr(self, name) + count)
        self.note(other.first)

    @property
    def faults(self) -> int:
        """The sum of all that must be 0."""
        return sum(self.counts(Role.FAULT).values())

    @property
    def clean(self) -> bool:
        """Whether something was compared, and nothing is at fault."""
        return any(self.counts(Role.EVIDENCE).values()) and not self.faults


@dataclass
class ValueTally(Tally):
    """The comparison of one field at one frequency, value by value."""

    compared: Evidence = 0
    """Values that both sides have."""
    last_bit: Size = 0
    """Of these: one float32 step apart, in a field whose sum may be added up in another order."""
    empty: Size = 0
    """Bars that are NaN on both sides, as they should be."""
    different: Fault = 0
    missing: Fault = 0
    """Should be a value, is NaN."""
    invented: Fault = 0
    """Should be NaN, is a value."""


@dataclass
class Judgement:
    """What one judge of a dataset found: (frequency, field) → counts, and problems that are no single values."""

    tallies: dict[tuple[str, str], ValueTally] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    problem_count: int = 0

    def count(self, frequency: str, name: str, tally: ValueTally) -> None:
        """Add the comparison of one field at one frequency."""
        self.tallies.setdefault((frequency, name), ValueTally()).add(tally)

    def problem(self, text: str) -> None:
        """Count a problem; the text of the first ones is kept."""
        self.problem_count += 1
        if len(self.problems) < _KEPT_PROBLEMS:
            self.problems.append(text)

    def add(self, other: "Judgement") -> None:
        """Add what another judgement found."""
        for (frequency, name), tally in other.tallies.items():
            self.count(frequency, name, tally)
        self.problem_count += other.problem_count
        self.problems = (self.problems + other.problems)[:_KEPT_PROBLEMS]

    @property
    def total(self) -> ValueTally:
        """The counts of all fields at all frequencies."""
        total = ValueTally()
        for tally in self.tallies.values():
            total.add(tally)
        return total

    @property
    def clean(self) -> bool:
        """Whether something was compared, and nothing differs."""
        return self.total.clean and not self.problem_count


def compare(should: Values, read: Values, place: Place, *, steps: int = 0) -> ValueTally:
    """Compare values. With steps=1 neighbours in float32 count as equal. NaN is equal to NaN alone."""
    wanted, present = ~np.isnan(should), ~np.isnan(read)
    both = wanted & present
    unequal = both & (should != read)
    near = unequal & (np.nextafter(should, read) == read) if steps else np.zeros(len(should), bool)
    different, missing, invented = unequal & ~near, wanted & ~present, present & ~wanted
    wrong = np.flatnonzero(different | missing | invented)
    return ValueTally(
        compared=int(np.count_nonzero(both)),
        last_bit=int(np.count_nonzero(near)),
        empty=int(np.count_nonzero(~wanted & ~present)),
        different=int(np.count_nonzero(different)),
        missing=int(np.count_nonzero(missing)),
        invented=int(np.count_nonzero(invented)),
        first=f"{place(int(wrong[0]))}: {read[wrong[0]]} instead of {should[wrong[0]]}" if len(wrong) else "",
    )


def compare_bits(should: Values, read: Values, place: Place) -> ValueTally:
    """Compare values bit for bit, the bits of NaN too."""
    tally = compare(should, read, place)
    bits = np.flatnonzero((should.view("<u4") != read.view("<u4")) & np.isnan(should) & np.isnan(read))
    tally.empty -= len(bits)
    tally.different += len(bits)
    if len(bits):
        tally.note(f"{place(int(bits[0]))}: another NaN")
    return tally
