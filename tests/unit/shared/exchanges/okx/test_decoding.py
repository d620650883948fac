"""Answers of which msgspec can hold all but a value: the row of it is named, and its neighbours are taken."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.exchanges.okx.decoding import Unreadable, _piecewise, decode_rows
from shared.exchanges.okx.funding import predictions_of
from shared.exchanges.okx.instruments import listing_of
from shared.exchanges.okx.rest import _Envelope, read_envelope
from tests.support.builders import a_candle_row, a_funding_row, minute

pytestmark = pytest.mark.invariant(12)

UNHELD = {
    "no float": "1e999",
    "an integer of many digits": "9" * 5_000,
    "half a surrogate pair": r'"\ud800"',
    "a deep list": "[" * 10_000 + "]" * 10_000,
    "a deep object": '{"a":' * 10_000 + "1" + "}" * 10_000,
    "no number": "NaN",
    "a bare control character": '"a\tb"',
}
GOOD = '{"instId":"ETH-USDT-SWAP","state":"live","note":"a, \\"b\\": [{"}'
LONG_AGO = minute(0)


def answer(*rows):
    """Return an answer with rows that are given as text."""
    return ('{"code":"0","outTime":[1],"msg":"","data":[' + ", ".join(rows) + "]}").encode()


@pytest.mark.parametrize("value", UNHELD.values(), ids=UNHELD)
def test_a_row_with_a_value_that_cannot_be_held_is_left_out_by_name_and_its_neighbours_stay(value):
    code, _, rows = read_envelope(answer(GOOD, '{"instId":"ODD-USDT-SWAP","x":' + value + "}", GOOD), 200)

    listing = listing_of(rows)

    assert code == "0"
    assert set(listing.instruments) == {"ETH_USDT"}
    assert listing.names == {"ETH_USDT", "ODD_USDT"}
    ((row, reason, _),) = listing.refused
    assert row["instId"] == "ODD-USDT-SWAP"
    assert reason.startswith("x: ")
    assert "ODD-USDT-SWAP" in reason
    assert b"ODD-USDT-SWAP" in msgspec.json.encode(row)


@pytest.mark.parametrize("value", UNHELD.values(), ids=UNHELD)
def test_a_rate_of_a_row_with_such_a_value_is_left_out_and_the_others_are_taken(value):
    good = a_funding_row(at=LONG_AGO, funding_time=minute(240))
    odd = json.dumps(good | {"instId": "ODD-USDT-SWAP"})[:-1] + ',"x":' + value + "}"

    _, _, rows = read_envelope(answer(odd, json.dumps(good)), 200)
    rates, refused, _ = predictions_of(rows, source="rest", receive_time=LONG_AGO, exchange_now=LONG_AGO)

    assert [rate.symbol for rate in rates] == ["BTC_USDT"]
    assert "ODD-USDT-SWAP" in refused[0].reason


@pytest.mark.parametrize("value", UNHELD.values(), ids=UNHELD)
def test_a_candle_with_such_a_value_keeps_its_time_and_its_other_columns(value):
    row = a_candle_row(minute(1))
    text = json.dumps(row[:4])[:-1] + "," + value + "," + json.dumps(row[5:])[1:]

    _, _, (read, other) = read_envelope(answer(text, json.dumps(row)), 200)

    assert read == [*row[:4], Unreadable(value[:200]), *row[5:]]
    assert other == row


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"',
        b'{"code":"0","data":[1e999]',
        b'{"code":"0","data":[1e999}}',
        b'{"code":"0","data":[1e999]} x',
        b'{"code":"0","data":["a]}',
        b'{"code":"0","data":1e999}',
        b'{"code":"0","data":{"a":1e999}}',
        b'{"code":{},"data":[1e999]}',
        b'{"code" "0","data":[1e999]}',
        b'{"code":"0",,"data":[1e999]}',
        b"[" * 100_000,
        b'{"code":' + b"[" * 10_000 + b"]" * 10_000 + b',"data":[]}',
        b'{"code":"0","data":[' + b" " * 2_000_000 + b"1e999]}",
        '{"code":"0","data":[1e999]}'.encode("utf-16"),
    ],
)
def test_what_is_no_answer_stays_none(body):
    assert read_envelope(body, 200)[0] == "50001"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.lists(JSON, max_size=5), st.booleans())
def test_taken_apart_an_answer_is_what_it_is_at_once(rows, spaced):
    text = json.dumps({"code": "0", "data": rows, "msg": "ok"}, indent=1 if spaced else None, ensure_ascii=False)

    apart = _piecewise(text, _Envelope)

    assert apart == decode_rows(text, _Envelope)
    assert apart.data == rows


@given(st.binary(max_size=40) | st.text('{}[]",: \\1e9').map(str.encode))
def test_whatever_stands_in_a_list_the_answer_is_read_or_refused(junk):
    code, message, data = read_envelope(b'{"code":"0","data":[' + junk + b"]}", 200)

    assert (type(code), type(message), type(data)) == (str, str, list)
