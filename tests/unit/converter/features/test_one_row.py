"""A field is one row of `FIELDS`: its documentation and the judge's own formula stand beside it, or are named here."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from cli.docs.fields import TABLE
from proofs.judges import recompute
from services.converter.features.fields import FIELDS, STOCK_FIELDS, Field, documentation_of

FORMULAS = {*recompute.PRICE_FORMULAS, *recompute.STATE_FORMULAS, *recompute.STOCK_FORMULAS}
ALL = (*FIELDS, *STOCK_FIELDS)
UNDOCUMENTED = "its row in docs/fields.md (`make fields` writes it)"
UNJUDGED = "an independent formula in proofs/judges/recompute.py"


def lacking(fields: Iterable[Field], page: str) -> list[str]:
    """Return a sentence for each field that lacks something, and for each name that is no field."""
    rows = {line.split("`$")[1].split("`")[0]: line for line in page.splitlines() if line.startswith("| `$")}
    known = {field.name: field for field in fields}
    found = []
    for name, field in known.items():
        needs = []
        if rows.get(name) != documentation_of(field):
            needs.append(UNDOCUMENTED)
        if name not in FORMULAS:
            needs.append(UNJUDGED)
        if needs:
            found.append(f"field {name} lacks {' and '.join(needs)}")
    found += [f"docs/fields.md describes {name}, which is no field" for name in sorted(rows.keys() - known.keys())]
    found += [
        f"proofs/judges/recompute.py computes {name}, which is no field" for name in sorted(FORMULAS - known.keys())
    ]
    return found


def new_in(fields: Iterable[Field]) -> list[str]:
    """Return what lacks of some fields and does not lack today: what does is the first test's to name."""
    today = lacking(ALL, TABLE.read_text())
    return [sentence for sentence in lacking(fields, TABLE.read_text()) if sentence not in today]


def test_every_field_is_documented_and_judged_and_nothing_else_is():
    assert (missing := lacking(ALL, TABLE.read_text())) == [], "\n".join(missing)


@pytest.mark.parametrize("place", [0, len(ALL)])
def test_a_field_added_as_one_row_alone_is_named_with_all_that_it_lacks(place):
    """Wherever the row is added."""
    spread = replace(FIELDS[0], name="spread", meaning="high - low")
    fields = [*ALL[:place], spread, *ALL[place:]]

    (found,) = new_in(fields)

    assert found == f"field spread lacks {UNDOCUMENTED} and {UNJUDGED}"


def test_a_field_that_is_gone_is_named_where_it_is_left():
    fields = [field for field in ALL if field.name != "vwap"]

    assert new_in(fields) == [
        "docs/fields.md describes vwap, which is no field",
        "proofs/judges/recompute.py computes vwap, which is no field",
    ]


def test_a_field_whose_meaning_changed_is_named_until_its_page_is_written():
    changed = [replace(field, meaning="another") if field.name == "life" else field for field in ALL]

    assert new_in(changed) == ["field life lacks its row in docs/fields.md (`make fields` writes it)"]
