"""What did a verification find? Discrepancies, notes, and how much was examined."""

from dataclasses import dataclass, field


class UnverifiableError(ValueError):
    """There is nothing that could be verified; the text says why."""


@dataclass(frozen=True)
class Discrepancy:
    """Something that is not as it must be. where: of several, the first."""

    file: str
    what: str
    where: str = ""
    count: int = 1


@dataclass
class Findings:
    """What was found. notes: what may be so, and is worth knowing."""

    differences: list[Discrepancy] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: int = 0
    values: int = 0
    """How much was examined."""

    def add(self, file: str, what: str, where: str = "", count: int = 1) -> None:
        """Note a difference."""
        self.differences.append(Discrepancy(file, what, where, count))
