"""What the ranker counts."""

from prometheus_client import Counter, Gauge

RANKINGS = Counter("qlib_crypto_ranker_rankings_total", "Rankings tried", ["outcome"])
RANKED_TIME = Gauge("qlib_crypto_ranker_ranked_time_seconds", "Instant of the last ranking, exchange's clock")
RANKED = Gauge("qlib_crypto_ranker_ranked_swaps", "Swaps in the last ranking")
CHANGES = Counter("qlib_crypto_ranker_changes_total", "Symbols that joined or left the universe", ["change"])
UNREADABLE = Counter("qlib_crypto_ranker_unreadable_rows_total", "Funding rows that made no sense")
