"""Who was a member of which exchange's universe, remembered."""

import json
from datetime import date

import pytest

from services.converter.raw.files import scan
from services.converter.raw.membership import members_after_rankings
from tests.support.builders import a_ranking, minute, store


@pytest.fixture
def raw(tmp_path):
    rows = [*a_ranking("BTC_USDT", ranked_time=minute(1)).ranks]
    rows += [*a_ranking("BTC_USDT.OTHER", "ETH_USDT.OTHER", ranked_time=minute(2), exchange="other").ranks]
    store(tmp_path / "raw", rows)
    return tmp_path / "raw"


def test_the_universe_of_each_exchange_is_its_own(raw, tmp_path):
    found = members_after_rankings(tmp_path, scan(raw, {}))

    assert found.after == {
        "okx": [(minute(1), {"BTC_USDT"})],
        "other": [(minute(2), {"BTC_USDT.OTHER", "ETH_USDT.OTHER"})],
    }
    assert members_after_rankings(tmp_path, scan(raw, {})).after == found.after


def test_what_an_older_version_remembered_counts_on(tmp_path):
    """It knew of one exchange only, and its file of that day is gone."""
    (tmp_path / ".converter").mkdir()
    remembered = {str(date(2025, 4, 5)): {"version": "x", "rankings": [[minute(1).isoformat(), ["BTC_USDT"]]]}}
    (tmp_path / ".converter" / "members.json").write_text(json.dumps(remembered))

    found = members_after_rankings(tmp_path, scan(tmp_path / "raw", {}))

    assert found.after == {"okx": [(minute(1), {"BTC_USDT"})]}
