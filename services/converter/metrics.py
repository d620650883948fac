"""What the converter counts."""

from prometheus_client import Counter, Gauge, Histogram

CONVERSIONS = Counter("qlib_crypto_converter_conversions_total", "Conversions tried", ["outcome"])
SECONDS = Histogram(
    "qlib_crypto_converter_seconds", "Duration of a conversion", buckets=(0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800)
)
DAYS = Counter("qlib_crypto_converter_days_total", "Days of a symbol computed")
CONVERTED_UNTIL = Gauge("qlib_crypto_converter_converted_until_seconds", "Watermark, Unix seconds, exchange's clock")
LEFT_OUT = Gauge(
    "qlib_crypto_converter_left_out_days",
    "Symbol days before the calendar's first day, which a new version is to take in",
)
LATE = Counter("qlib_crypto_converter_late_days_total", "Symbol days patched since rows of them came late")
MISSING = Gauge("qlib_crypto_converter_missing_minutes", "Minutes of the newest converted day that were still missing")
