"""How OKX spells things: every number a plain decimal string, times in ms, "" for what is absent."""

from functools import cache
from typing import Any

import msgspec

from services.simulator.engine.decimals import plain, power_of_ten, shifted
from services.simulator.engine.funding import predicted_rate, settlement_state
from services.simulator.engine.market import Candle, FundingPeriod, Instrument, Settlement

INTEREST = "0.0001"
"""interestRate of crypto swaps; stock and commodity perpetuals carry 0."""


def candle_row(candle: Candle, instrument: Instrument, confirmed: bool) -> list[str]:
    """Spell [ts, o, h, l, c, vol, volCcy, volCcyQuote, confirm]; vol is contracts, volCcy base coin."""
    instrument = instrument.as_of(candle.open_ms)
    contract_unit = candle.quote_volume if instrument.inverse else candle.base_volume
    return [
        str(candle.open_ms),
        plain(candle.open),
        plain(candle.high),
        plain(candle.low),
        plain(candle.close),
        shifted(contract_unit, instrument.contract_exponent),
        plain(candle.base_volume),
        plain(candle.quote_volume),
        "1" if confirmed else "0",
    ]


def candle_push(inst_id: str, row: list[str]) -> bytes:
    """Spell a candle1m push; built by hand because it is made thousands of times a second."""
    fields, name = '","'.join(row), _quoted(inst_id)
    return f'{{"arg":{{"channel":"candle1m","instId":{name}}},"data":[["{fields}"]]}}'.encode()


@cache
def _quoted(name: str) -> str:
    """Spell a name as JSON: whatever characters it has."""
    return msgspec.json.encode(name).decode()


def funding_row(instrument: Instrument, period: FundingPeriod, at_ms: int) -> dict[str, str]:
    """Spell the current funding of an instrument (REST funding-rate and the channel share the fields)."""
    instrument = instrument.as_of(at_ms)
    crypto = instrument.category == "1"
    settled = period.settled
    cap = plain(instrument.rate_cap)
    rate = predicted_rate(period, at_ms)
    return {
        "formulaType": "withRate",
        "fundingRate": plain(rate),
        "fundingTime": str(period.funding_ms),
        "impactValue": "20000" if crypto else "5000",
        "instId": instrument.inst_id,
        "instType": instrument.inst_type,
        "interestRate": INTEREST if crypto else "0",
        "maxFundingRate": cap,
        "method": "current_period",
        "minFundingRate": "-" + cap,
        "nextFundingRate": "",
        "nextFundingTime": str(period.following_ms),
        "premium": plain(round(rate - (float(INTEREST) if crypto else 0.0), 16)),
        "prevFundingTime": str(settled.funding_ms) if settled else "",
        "settFundingRate": plain(settled.rate) if settled else "",
        "settState": settlement_state(period, at_ms),
        "ts": str(at_ms),
    }


def settlement_row(instrument: Instrument, settlement: Settlement) -> dict[str, str]:
    """Spell one row of funding-rate-history."""
    rate = plain(settlement.rate)
    return {
        "formulaType": "withRate",
        "fundingRate": rate,
        "fundingTime": str(settlement.funding_ms),
        "instId": instrument.inst_id,
        "instType": instrument.inst_type,
        "method": "current_period",
        "realizedRate": rate,
    }


INSTRUMENT_FIELDS = (
    "alias",
    "auctionEndTime",
    "baseCcy",
    "category",
    "contTdSwTime",
    "ctMult",
    "ctType",
    "ctVal",
    "ctValCcy",
    "expTime",
    "futureSettlement",
    "groupId",
    "instCategory",
    "instFamily",
    "instId",
    "instIdCode",
    "instType",
    "lever",
    "listTime",
    "lotSz",
    "maxIcebergSz",
    "maxLmtAmt",
    "maxLmtSz",
    "maxMktAmt",
    "maxMktSz",
    "maxPlatOILmt",
    "maxStopSz",
    "maxTriggerSz",
    "maxTwapSz",
    "minSz",
    "openType",
    "optType",
    "posLmtAmt",
    "posLmtPct",
    "preMktSwTime",
    "quoteCcy",
    "ruleType",
    "settleCcy",
    "state",
    "stk",
    "tickSz",
    "tradeQuoteCcyList",
    "uly",
    "upcChg",
)
"""The fields of a live answer; most are "" for a swap."""


def instrument_row(instrument: Instrument, at_ms: int) -> dict[str, Any]:
    """Spell one row of public/instruments; of an announced listing only four fields are filled (documented)."""
    instrument = instrument.as_of(at_ms)
    state = instrument.state(at_ms)
    row: dict[str, Any] = dict.fromkeys(INSTRUMENT_FIELDS, "")
    row |= {
        "instId": instrument.inst_id,
        "instType": instrument.inst_type,
        "listTime": str(instrument.list_ms),
        "state": {"announced": "preopen", "gone": "expired"}.get(state, state),
        "instIdCode": None,
        "tradeQuoteCcyList": [],
        "upcChg": [],
        "futureSettlement": False,
    }
    if state == "announced":
        return row
    return row | _contract_fields(instrument) | _what_changes(instrument, at_ms)


def _what_changes(instrument: Instrument, at_ms: int) -> dict[str, Any]:
    upcoming = [change for change in instrument.tick_changes if change.announce_ms <= at_ms < change.at_ms]
    return {
        "expTime": str(instrument.delist_ms) if at_ms >= instrument.exp_told_ms else "",
        "tickSz": power_of_ten(-instrument.decimals_at(at_ms)),
        "upcChg": [
            {"param": "tickSz", "newValue": power_of_ten(-change.decimals), "effTime": str(change.at_ms)}
            for change in upcoming
        ],
    }


def _contract_fields(instrument: Instrument) -> dict[str, Any]:
    futures = instrument.inst_type == "FUTURES"
    lot = "1" if instrument.inverse else "0.01"
    margin = instrument.base if instrument.inverse else instrument.quote
    return {
        "category": "1",
        "ctMult": "1",
        "ctType": "inverse" if instrument.inverse else "linear",
        "ctVal": power_of_ten(instrument.contract_exponent),
        "ctValCcy": instrument.quote if instrument.inverse else instrument.base,
        "groupId": "1",
        "instCategory": instrument.category,
        "instFamily": instrument.family,
        "instIdCode": 10_000 + sum(instrument.inst_id.encode()),
        "lever": "50",
        "lotSz": lot,
        "maxLmtAmt": "20000000",
        "maxLmtSz": "100000000",
        "maxMktSz": "35000",
        "minSz": lot,
        "ruleType": "xperp" if futures else "normal",
        "settleCcy": margin,
        "uly": f"{instrument.base}-{instrument.quote}",
    }
