"""What the collector counts."""

from prometheus_client import Counter, Gauge

FRAMES = Counter("qlib_crypto_collector_rows_total", "Rows received over WebSocket", ["channel"])
CONNECTS = Counter("qlib_crypto_collector_connects_total", "Connections opened", ["channel"])
OPERATIONS = Counter("qlib_crypto_collector_operations_total", "Subscribe and unsubscribe frames", ["channel", "op"])
SUBSCRIBED = Gauge("qlib_crypto_collector_subscribed", "Subscriptions acknowledged on the live connection", ["channel"])
REJECTED = Counter("qlib_crypto_collector_rejected_total", "Subscriptions rejected", ["channel", "code"])
CANDLES = Counter("qlib_crypto_collector_candles_total", "Closed candles handed on", ["source"])
PAGES = Counter("qlib_crypto_collector_pages_total", "Pages of history asked for", ["endpoint"])
MISSING = Gauge("qlib_crypto_collector_missing_minutes", "Minutes that should be there and are not yet", ["dataset"])
ABSENT = Gauge("qlib_crypto_collector_absent_minutes", "Minutes that the exchange does not have", ["dataset"])
BUFFERED = Gauge("qlib_crypto_collector_buffered_events", "Events waiting for the bus")
FORGOTTEN = Counter("qlib_crypto_collector_forgotten_total", "Events dropped from a full buffer, to be fetched again")
DATA_AGE = Gauge("qlib_crypto_collector_data_age_seconds", "Age of the newest row of a channel", ["channel"])
LOST = Counter(
    "qlib_crypto_collector_lost_total", "Rows handed on that never became durable, fetched again", ["channel"]
)
RENEWALS = Counter("qlib_crypto_collector_renewals_total", "Subscriptions sent again", ["channel", "reason"])
REPLACED = Counter("qlib_crypto_collector_replaced_total", "Connections that were replaced by a next one", ["channel"])
REJECTED_NOW = Gauge("qlib_crypto_collector_rejected_now", "Subscriptions that the exchange rejects now", ["channel"])
SILENT_NOW = Gauge("qlib_crypto_collector_silent_now", "Subscriptions without rows or without an ack now", ["channel"])
CONNECTIONS_NOW = Gauge("qlib_crypto_collector_connections_now", "Connections that are open now", ["channel"])
HALTED = Gauge("qlib_crypto_collector_halted_minutes", "Minutes without a row since trading stood still", ["dataset"])
SETTLEMENTS = Counter("qlib_crypto_collector_settlements_total", "Settlements by what their history said", ["result"])
LIFE_CYCLE = Counter("qlib_crypto_collector_instrument_changes_total", "What became of instruments", ["what"])
FOLLOWED = Gauge("qlib_crypto_collector_followed", "Symbols followed: members, and leavers in their grace time", ["as"])
REFUSED = Gauge(
    "qlib_crypto_collector_refused_minutes", "Minutes of which the exchange has a row that cannot be true", ["dataset"]
)
FLAGGED = Counter("qlib_crypto_collector_flagged_rates_total", "Settlements with a rate beyond what is plausible")
DISBELIEVED = Counter(
    "qlib_crypto_collector_disbelieved_lists_total", "Lists of instruments that lacked too many names"
)
