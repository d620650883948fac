"""What a judge of the dataset counts, and how two sequences of float32 values are compared. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields

import numpy as np

from proofs.judges.bins import Values

Place = Callable[[int], str]
"""Index of a value → its name, for people."""

_KEPT_PROBLEMS = 50


@dataclass
class Tally:
    """The comparison of one field at one frequency."""

    compared: int = 0
    """Values that both sides have."""
    last_bit: int = 0
    """Of these: one float32 step apart, in a field whose sum may be added up in another order."""
    empty: int = 0
    """Bars that are NaN on both sides, as they should be."""
    different: int = 0
    missing: int = 0
    """Should be a value, is NaN."""
    invented: int = 0
    """Should be NaN, is a value."""
    first: str = ""
    """The first difference, named."""

    @property
    def wrong(self) -> int:
        """Return the number of differences."""
        return self.different + self.missing + self.invented

    def add(self, other: "Tally") -> None:
        """Take in what another comparison counted."""
        for one in fields(self):
            if one.name != "first":
                setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))
        self.first = self.first or other.first


@dataclass
class Judgement:
    """What one judge found: (frequency, field) → counts, and problems that are no single values."""

    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    problem_count: int = 0

    def count(self, frequency: str, name: str, tally: Tally) -> None:
        """Take in the comparison of one field at one frequency."""
        self.tallies.setdefault((frequency, name), Tally()).add(tally)

    def problem(self, text: str) -> None:
        """Note a problem; the first ones are kept word for word."""
        self.problem_count += 1
        if len(self.problems) < _KEPT_PROBLEMS:
            self.problems.append(text)

    def add(self, other: "Judgement") -> None:
        """Take in what another judgement found."""
        for (frequency, name), tally in other.tallies.items():
            self.count(frequency, name, tally)
        self.problem_count += other.problem_count
        self.problems = (self.problems + other.problems)[:_KEPT_PROBLEMS]

    @property
    def total(self) -> Tally:
        """Return the counts of all fields at all frequencies."""
        total = Tally()
        for tally in self.tallies.values():
            total.add(tally)
        return total

    @property
    def clean(self) -> bool:
        """Return whether something was compared and nothing differs: a judge that saw nothing has proved nothing."""
        return self.total.compared > 0 and not self.total.wrong and not self.problem_count


def compare(should: Values, read: Values, place: Place, *, steps: int = 0) -> Tally:
    """Compare values. With steps=1 neighbours in float32 count as equal. NaN is equal to NaN alone."""
    wanted, present = ~np.isnan(should), ~np.isnan(read)
    both = wanted & present
    unequal = both & (should != read)
    near = unequal & (np.nextafter(should, read) == read) if steps else np.zeros(len(should), bool)
    different, missing, invented = unequal & ~near, wanted & ~present, present & ~wanted
    wrong = np.flatnonzero(different | missing | invented)
    return Tally(
        compared=int(np.count_nonzero(both)),
        last_bit=int(np.count_nonzero(near)),
        empty=int(np.count_nonzero(~wanted & ~present)),
        different=int(np.count_nonzero(different)),
        missing=int(np.count_nonzero(missing)),
        invented=int(np.count_nonzero(invented)),
        first=f"{place(int(wrong[0]))}: {read[wrong[0]]} instead of {should[wrong[0]]}" if len(wrong) else "",
    )


def compare_bits(should: Values, read: Values, place: Place) -> Tally:
    """Compare values bit for bit, the bits of NaN too."""
    tally = compare(should, read, place)
    bits = np.flatnonzero((should.view("<u4") != read.view("<u4")) & np.isnan(should) & np.isnan(read))
    tally.empty -= len(bits)
    tally.different += len(bits)
    if len(bits) and not tally.first:
        tally.first = f"{place(int(bits[0]))}: another NaN"
    return tally
