"""Rows as OKX sent them: recorded, or quoted from its documentation."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from shared.datasets.candle import Candle
from shared.exchanges.okx.candles import candle_of
from shared.grid import from_ms
from tests.support.builders import at

RECEIVED = at("2025-05-13 00:00:30")
FUNDING_NOW = from_ms(1789824250000)
"""Just after the funding row below."""
# REST, /market/candles, BTC-USDT-SWAP, ctVal 0.01
CANDLE = [
    "1747094040000",
    "102806.1",
    "102820.4",
    "102806.1",
    "102820.4",
    "1040.37",
    "10.4037",
    "1069603.34883",
    "1",
]
INSTRUMENT: Mapping[str, Any] = {
    "instId": "BTC-USDT-SWAP",
    "instType": "SWAP",
    "uly": "BTC-USDT",
    "instFamily": "BTC-USDT",
    "settleCcy": "USDT",
    "ctType": "linear",
    "ctVal": "0.01",
    "ctValCcy": "BTC",
    "ctMult": "1",
    "lotSz": "0.01",
    "state": "live",
    "ruleType": "normal",
    "listTime": "1573557408000",
    "expTime": "",
    "instIdCode": 10459,
    "tradeQuoteCcyList": [],
    "category": "1",
}
INVERSE: Mapping[str, Any] = {
    "instId": "BTC-USD-SWAP",
    "instType": "SWAP",
    "settleCcy": "BTC",
    "ctType": "inverse",
    "ctVal": "100",
    "ctValCcy": "USD",
    "state": "live",
}
FUNDING: Mapping[str, Any] = {
    "formulaType": "withRate",
    "fundingRate": "0.0001000000000000",
    "fundingTime": "1789833600000",
    "impactValue": "20000.0000000000000000",
    "instId": "BTC-USDT-SWAP",
    "instType": "SWAP",
    "interestRate": "0.0001000000000000",
    "maxFundingRate": "0.00375",
    "method": "current_period",
    "minFundingRate": "-0.00375",
    "nextFundingRate": "",
    "nextFundingTime": "1789862400000",
    "premium": "-0.0001969158061855",
    "prevFundingTime": "1789804800000",
    "settFundingRate": "0.0000418741079605",
    "settState": "settled",
    "ts": "1789824243998",
}
HISTORY: Mapping[str, Any] = {
    "formulaType": "withRate",
    "fundingRate": "0.0000418741079605",
    "fundingTime": "1788480000000",
    "instId": "BTC-USDT-SWAP",
    "instType": "SWAP",
    "method": "current_period",
    "realizedRate": "0.0000418741079605",
}


def candle_in(row: object, inst_id: str = "BTC-USDT-SWAP", now: datetime = RECEIVED) -> Candle:
    """Read a candle row of the REST interface."""
    return candle_of(inst_id, row, source="rest", receive_time=RECEIVED, exchange_now=now)
