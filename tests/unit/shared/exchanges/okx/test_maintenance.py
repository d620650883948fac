"""Rows of the maintenance windows, quoted from the documentation."""

import pytest

from shared.exchanges.okx.maintenance import maintenances_of


@pytest.mark.parametrize(
    ("service", "env", "halts"),
    [("5", "1", True), ("9", "1", True), ("", "", True), ("11", "1", False), ("0", "1", False), ("5", "2", False)],
)
def test_only_maintenance_of_trading_on_the_exchange_itself_halts_swaps(service, env, halts):
    (window,), *_ = maintenances_of([{"begin": "1789833600000", "serviceType": service, "env": env}])

    assert window.halts_swaps == halts


def test_a_maintenance_with_an_impossible_begin_is_left_out():
    _, refused, _ = maintenances_of([{"begin": "99999999999999999"}, {"begin": ""}, {}])

    assert len(refused) == 3
