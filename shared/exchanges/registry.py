"""The exchange that this installation talks to: the one place that chooses it.

A package beside `shared/okx/` with these names is another exchange; the services know only this module.
"""

from shared.exchanges.okx.decoding import decode_rows
from shared.exchanges.okx.parse import (
    EXCHANGE,
    Instrument,
    Listing,
    Maintenance,
    Refused,
    SpellingError,
    candle_of,
    candle_row_of,
    definition_of,
    inst_id_of,
    is_eligible,
    predicted_of,
    predictions_of,
    settled_of,
    settlements_of,
    symbol_of,
)
from shared.exchanges.okx.rest import (
    PAGE_CANDLES,
    RECENT_MINUTES,
    SHARE_OF_AUDIT,
    SHARE_OF_AUDIT_BY_HAND,
    UnknownInstrument,
    tls_context,
)
from shared.exchanges.okx.rest import OkxClient as ExchangeClient
from shared.exchanges.okx.rest import OkxError as ExchangeError

__all__ = [
    "EXCHANGE",
    "PAGE_CANDLES",
    "RECENT_MINUTES",
    "SHARE_OF_AUDIT",
    "SHARE_OF_AUDIT_BY_HAND",
    "ExchangeClient",
    "ExchangeError",
    "Instrument",
    "Listing",
    "Maintenance",
    "Refused",
    "SpellingError",
    "UnknownInstrument",
    "candle_of",
    "candle_row_of",
    "decode_rows",
    "definition_of",
    "inst_id_of",
    "is_eligible",
    "predicted_of",
    "predictions_of",
    "settled_of",
    "settlements_of",
    "symbol_of",
    "tls_context",
]
