"""Finds the fields that lack what has to stand beside their row: documentation, and two formulas that share no code."""

from collections.abc import Iterable, Mapping

from cli.docs.fields import TABLE
from proofs.judges import recompute
from services.converter.features.fields import FIELDS, STOCK_FIELDS, Field, documentation_of
from tests.support import plain_bars

ALL = (*FIELDS, *STOCK_FIELDS)
JUDGED = frozenset({*recompute.PRICE_FORMULAS, *recompute.STATE_FORMULAS, *recompute.STOCK_FORMULAS})
UNJUDGED = JUDGED ^ {field.name for field in ALL}
"""Fields that the converter has and the judge has not, or the other way round: no dataset can pass the judges."""

UNDOCUMENTED = "docs/fields.md: its row, which `make fields` writes"
NO_FORMULA = "proofs/judges/recompute.py: its formula in pandas, in PRICE_FORMULAS, STATE_FORMULAS or STOCK_FORMULAS"
NO_LOOP = "tests/support/plain_bars.py: its value in plain Python, in PRICES or _state"
LEFT = {
    "docs/fields.md": "`make fields`",
    "proofs/judges/recompute.py": "take its formula out",
    "tests/support/plain_bars.py": "take its value out",
}
"""File → what to do there about a field that is gone."""


def lacking(fields: Iterable[Field], page: str) -> list[str]:
    """Return what each field lacks, file by file, and the names that are no field.

    page: the text of docs/fields.md. The plain loops compute no field of `STOCK_FIELDS`.
    """
    known = {field.name: field for field in fields}
    rows = {line.split("`$")[1].split("`")[0]: line for line in page.splitlines() if line.startswith("| `$")}
    found = [f"field {name} lacks\n  {needs}" for name, field in known.items() if (needs := _needs(field, rows))]
    sides = zip(LEFT, (rows.keys(), JUDGED, plain_bars.COMPUTED), strict=True)
    return found + [
        f"{name} is no field and stands in\n  {path}: {LEFT[path]}"
        for path, names in sides
        for name in sorted(names - known.keys())
    ]


def _needs(field: Field, rows: Mapping[str, str]) -> str:
    needs = []
    if rows.get(field.name) != documentation_of(field):
        needs.append(UNDOCUMENTED)
    if field.name not in JUDGED:
        needs.append(NO_FORMULA)
    if field.name not in plain_bars.COMPUTED and field not in STOCK_FIELDS:
        needs.append(NO_LOOP)
    return "\n  ".join(needs)


def todays_page() -> str:
    """Return the text of docs/fields.md."""
    return TABLE.read_text(encoding="utf-8")
