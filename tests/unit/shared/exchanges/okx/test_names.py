"""Names of swaps, as the exchange sent them, and names that no symbol can be made of."""

import pytest

from shared.exchanges.okx.instruments import listing_of
from shared.exchanges.okx.names import inst_id_of, is_swap, symbol_of
from tests.support.okx_rows import INSTRUMENT, INVERSE


@pytest.mark.parametrize(
    ("inst_id", "symbol"),
    [
        ("BTC-USDT-SWAP", "BTC_USDT"),
        ("BTC-USD-SWAP", "BTC_USD"),
        ("BTC-USD_UM-SWAP", "BTC_USD_UM"),
        ("1000PEPE-USDT-SWAP", "1000PEPE_USDT"),
        ("1INCH-USDC-SWAP", "1INCH_USDC"),
    ],
)
def test_names_go_there_and_back(inst_id, symbol):
    assert symbol_of(inst_id) == symbol
    assert inst_id_of(symbol) == inst_id


@pytest.mark.parametrize(
    ("inst_id", "answer"),
    [("BTC-USDT-SWAP", True), ("ETH-USD_UM_XPERP-310404", False), ("BTC-USD-250627", False), ("", False)],
)
def test_x_perps_and_dated_futures_are_no_swaps(inst_id, answer):
    assert is_swap(inst_id) == answer


@pytest.mark.parametrize(
    "inst_id",
    [
        "../../../EVIL-USDT-SWAP",
        "X-Y-USDT-SWAP",
        "A_B-USDT-SWAP",
        "A" * 260 + "-USDT-SWAP",
        "A\0B-USDT-SWAP",
        "A\nB-USDT-SWAP",
        "A\tB-USDT-SWAP",
        "A B-USDT-SWAP",
        "A.B-USDT-SWAP",
        "\u202eABC-USDT-SWAP",
        "\ud800-USDT-SWAP",
        "🐉-USDT-SWAP",
        "e\u0301-USDT-SWAP",
        "-SWAP",
        "--SWAP",
        "-USDT-SWAP",
    ],
)
def test_a_name_that_is_not_safe_or_does_not_lead_back_is_left_out(inst_id):
    listing = listing_of([INSTRUMENT | {"instId": inst_id}, INVERSE])

    assert set(listing.instruments) == {"BTC_USD"}
    ((_, reason, _),) = listing.refused
    assert reason.startswith("instId: ")


@pytest.mark.parametrize(
    "inst_id", ["龙-USDT-SWAP", "币安人生-USDT-SWAP", "kPEPE-USDT-SWAP", "A" * 40 + "-USDT-SWAP", "ไทย-USDT-SWAP"]
)
def test_letters_of_any_script_are_welcome(inst_id):
    (symbol,) = listing_of([INSTRUMENT | {"instId": inst_id}]).instruments

    assert inst_id_of(symbol) == inst_id
