import pytest

from services.simulator.engine.names import UnreadableNameError, inst_id_of


@pytest.mark.parametrize(
    ("symbol", "inst_id"),
    [
        ("ADA", "ADA-USDT-SWAP"),
        ("ADAUSDT", "ADA-USDT-SWAP"),
        ("ada_usdt", "ADA-USDT-SWAP"),
        ("ADA_USDT_SWAP", "ADA-USDT-SWAP"),
        ("ADA/USDT", "ADA-USDT-SWAP"),
        ("ADA/USDT:USDT", "ADA-USDT-SWAP"),
        ("ADA-USDT-SWAP", "ADA-USDT-SWAP"),
        ("ADA-USDT-PERP", "ADA-USDT-SWAP"),
        ("ADAUSDT-PERP", "ADA-USDT-SWAP"),
        ("ADAUSDTPERP", "ADA-USDT-SWAP"),
        ("BINANCE:ADAUSDT", "ADA-USDT-SWAP"),
        (" ADAUSDT ", "ADA-USDT-SWAP"),
        ("1000PEPEUSDT", "1000PEPE-USDT-SWAP"),
        ("BTCUSDC", "BTC-USDC-SWAP"),
        ("USDCUSDT", "USDC-USDT-SWAP"),
        ("USDC", "USDC-USDT-SWAP"),
        ("TUSD", "TUSD-USDT-SWAP"),
        ("BTCUSD_PERP", "BTC-USD-SWAP"),
        ("BTC/USD:BTC", "BTC-USD-SWAP"),
        ("BTC-USD_UM-SWAP", "BTC-USD_UM-SWAP"),
    ],
)
def test_every_usual_spelling_becomes_the_inst_id(symbol, inst_id):
    assert inst_id_of(symbol) == inst_id
    assert inst_id_of(inst_id) == inst_id


@pytest.mark.parametrize("symbol", ["", "  ", "-", "A-B-C", "ÄDA-USDT", "ADA?USDT"])
def test_what_cannot_be_read_is_named(symbol):
    with pytest.raises(UnreadableNameError, match="cannot read"):
        inst_id_of(symbol)
