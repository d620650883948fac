"""Names: what is a symbol is safe wherever it goes."""

import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.symbol import MAX_BYTES, SymbolError, _is_invisible, belongs, fold, parse_symbol, symbol_at, unique


@pytest.mark.parametrize(
    "text", ["BTC_USDT", "BTC_USD_UM", "1000PEPE_USDT", "kPEPE_USDT", "龙_USDT", "A" * 40 + "_USDT", "ไทย_USDT"]
)
def test_letters_and_digits_of_any_script_joined_by_underscores_are_a_symbol(text):
    assert parse_symbol(text) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("_", "letters and digits"),
        ("BTC__USDT", "letters and digits"),
        ("BTC_", "letters and digits"),
        ("../x", "letters and digits"),
        ("a/b", "letters and digits"),
        ("a\\b", "letters and digits"),
        ("a.b", "letters and digits"),
        ("a\0b", "letters and digits"),
        ("a\nb", "letters and digits"),
        ("a\tb", "letters and digits"),
        ("a b", "letters and digits"),
        ("a-b", "letters and digits"),
        ("*", "letters and digits"),
        ("a\u200bb", "letters and digits"),
        ("\u0301a", "letters and digits"),
        ("e\u0301", "composed form"),
        ("\ud800", "letters and digits"),
        ("A" * (MAX_BYTES + 1), "longer"),
        ("龙" * 60, "longer"),
    ],
)
def test_everything_else_is_refused_and_says_why(text, why):
    with pytest.raises(SymbolError, match=why):
        parse_symbol(text)


@given(st.text(max_size=300) | st.text(string.ascii_letters + string.digits + "_", max_size=300))
def test_whatever_is_accepted_is_safe_as_a_file_a_folder_a_word_and_a_key(text):
    try:
        symbol = parse_symbol(text)
    except SymbolError:
        return
    assert symbol == text
    for form in (symbol, symbol.lower(), fold(symbol)):
        assert len(f".{form}_20250405.parquet.1234567.damaged.txt".encode()) <= 255
        assert not set(form) & set("/\\.:*?\"'<>| \t\r\n\0,=")
        assert form.isprintable()
        assert form.split() == [form]
        assert unicodedata.normalize("NFC", form) == form or form != symbol


@pytest.mark.parametrize(
    "text",
    [
        "BTC\ufe0f_USDT",
        "BTC\u034f_USDT",
        "\u3164_USDT",
        "\u115f_USDT",
        "BTC\u1160_USDT",
        "BTC\uffa0_USDT",
        "\u17b4_USDT",
        "ក\u17b4_USDT",
        "ᠠ\u180b_USDT",
        "龙\U000e0100_USDT",
        "BTC_USDT\u180f",
    ],
)
def test_a_name_with_a_character_that_shows_nothing_is_refused(text):
    with pytest.raises(SymbolError, match=r"shows nothing: U\+|letters and digits"):
        parse_symbol(text)


@pytest.mark.parametrize("text", ["हिन्दी", "ไทย", "ភាសា", "ᠮᠣᠩ", "한글", "தமிழ்", "עִבְ", "中文"])
def test_marks_that_a_script_needs_are_welcome(text):
    assert parse_symbol(f"{text}_USDT")


def test_the_invisible_characters_are_those_of_the_standard():
    """Default_Ignorable_Code_Point is derived from other properties; those that Python knows are held against it."""
    concatenation_marks = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
    visible_formats = concatenation_marks | {0xFFF9, 0xFFFA, 0xFFFB} | {*range(0x13430, 0x13440)}
    for number in range(0x110000):
        character = chr(number)
        name = unicodedata.name(character, "")
        derived = unicodedata.category(character) == "Cf" and number not in visible_formats
        selector = "VARIATION SELECTOR" in name
        filler = name.startswith(("HANGUL", "HALFWIDTH HANGUL")) and name.endswith("FILLER")
        if derived or selector or filler:
            assert _is_invisible(character), f"U+{number:04X}"
        elif name and _is_invisible(character):
            assert number in {0x34F, 0x17B4, 0x17B5}, f"U+{number:04X}"


def test_of_symbols_that_differ_in_case_alone_the_first_stays():
    symbols = [
        parse_symbol(text) for text in ("AI_USDT", "BTC_USDT", "ai_USDT", "Ai_USDT", "STRASSE_USD", "straße_USD")
    ]

    assert unique(symbols) == {"ai_USDT": "AI_USDT", "Ai_USDT": "AI_USDT", "straße_USD": "STRASSE_USD"}


@pytest.mark.parametrize(
    ("exchange", "symbol"),
    [
        ("okx", "BTC_USDT"),
        ("binance", "BTC_USDT.BINANCE"),
        ("binance_usdm", "BTC_USDT.BINANCE"),
        ("bybit", "BTC_USDT.BYBIT"),
    ],
)
def test_a_symbol_is_unique_over_exchanges(exchange, symbol):
    """Invariant 2: what is listed under one name on two exchanges is two instruments."""
    assert symbol_at(exchange, "BTC_USDT") == symbol
    assert belongs(symbol, exchange)
    assert [other for other in ("okx", "binance", "bybit") if belongs(symbol, other)] == [exchange.partition("_")[0]]


@pytest.mark.parametrize(
    "text", ["BTC_USDT.", ".BINANCE", "BTC_USDT.binance", "BTC_USDT.A.B", "BTC_USDT.B-X", "BTC_USDT.É"]
)
def test_what_stands_behind_a_dot_must_be_an_exchange(text):
    with pytest.raises(SymbolError):
        parse_symbol(text)
