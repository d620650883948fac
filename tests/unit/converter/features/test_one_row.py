"""A field is one row of `FIELDS`: all that has to stand beside it does, or is named here, with its file.

Every other test leaves out a field that lacks something, so this one alone fails.
"""

from dataclasses import replace

import pytest

from services.converter.features.fields import FIELDS
from tests.support.field_rows import ALL, LEFT, NO_FORMULA, NO_LOOP, UNDOCUMENTED, lacking, todays_page


def new_in(fields):
    """Return what lacks of some fields and does not lack today: what does is the first test's to name."""
    today = lacking(ALL, todays_page())
    return [sentence for sentence in lacking(fields, todays_page()) if sentence not in today]


def test_every_field_is_documented_and_judged_twice_and_nothing_else_is():
    if missing := lacking(ALL, todays_page()):
        pytest.fail("\n".join(missing), pytrace=False)


@pytest.mark.parametrize("place", [0, len(ALL)])
def test_a_field_added_as_one_row_alone_is_named_with_all_that_it_lacks(place):
    """Wherever the row is added."""
    spread = replace(FIELDS[0], name="spread", meaning="high - low")
    fields = [*ALL[:place], spread, *ALL[place:]]

    assert new_in(fields) == [f"field spread lacks\n  {UNDOCUMENTED}\n  {NO_FORMULA}\n  {NO_LOOP}"]


def test_a_field_that_is_gone_is_named_in_every_file_where_it_is_left():
    fields = [field for field in ALL if field.name != "vwap"]

    assert new_in(fields) == [f"vwap is no field and stands in\n  {path}: {what}" for path, what in LEFT.items()]


def test_a_field_whose_meaning_changed_is_named_until_its_page_is_written():
    changed = [replace(field, meaning="another") if field.name == "life" else field for field in ALL]

    assert new_in(changed) == [f"field life lacks\n  {UNDOCUMENTED}"]
