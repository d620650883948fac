"""What the writer counts."""

from prometheus_client import Counter, Gauge, Histogram

ROWS = Counter("qlib_crypto_writer_rows_total", "Rows merged into files, copies included", ["dataset"])
FILES = Counter("qlib_crypto_writer_files_total", "Files replaced", ["dataset"])
FLUSH_SECONDS = Histogram("qlib_crypto_writer_flush_seconds", "Time from a full batch to its acknowledgement")
WAITING = Gauge("qlib_crypto_writer_waiting_entries", "Entries in memory that are not durable yet")
WRITTEN_UNTIL = Gauge("qlib_crypto_writer_written_until_seconds", "Watermark, Unix seconds of the exchange's clock")
RETIRED = Counter("qlib_crypto_writer_retired_days_total", "Raw days deleted by the retention")
DAMAGED = Counter("qlib_crypto_writer_damaged_files_total", "Unreadable files that were put aside", ["dataset"])
