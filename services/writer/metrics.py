"""What the writer counts."""

from prometheus_client import Counter, Gauge, Histogram

ROWS = Counter("qlib_crypto_writer_rows_total", "Rows made durable, copies included", ["dataset"])
SEGMENTS = Gauge("qlib_crypto_writer_segments", "Files of rows that are not merged into day files yet")
PENDING_ROWS = Gauge("qlib_crypto_writer_segment_rows", "Rows in them")
COMPACTED = Counter("qlib_crypto_writer_compacted_bytes_total", "Bytes of day files that merges wrote", ["dataset"])
COMPACTION_SECONDS = Histogram(
    "qlib_crypto_writer_compaction_seconds",
    "Time to merge all segments into day files",
    buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300),
)
FLUSH_SECONDS = Histogram("qlib_crypto_writer_flush_seconds", "Time from a full batch to its acknowledgement")
WAITING = Gauge("qlib_crypto_writer_waiting_entries", "Entries in memory that are not durable yet")
WRITTEN_UNTIL = Gauge("qlib_crypto_writer_written_until_seconds", "Watermark, Unix seconds of the exchange's clock")
RETIRED = Counter("qlib_crypto_writer_retired_days_total", "Raw days deleted by the retention")
DAMAGED = Counter("qlib_crypto_writer_damaged_files_total", "Unreadable files that were put aside", ["dataset"])
SUSPECTS = Counter("qlib_crypto_writer_suspect_candles_total", "Candles whose price jumps tenfold; they are audited")
AUDIT_PAGES = Counter("qlib_crypto_audit_pages_total", "Pages that were asked for again and compared")
AUDIT_MINUTES = Counter("qlib_crypto_audit_minutes_total", "Minutes that were compared with the exchange's")
AUDIT_MISMATCHES = Counter(
    "qlib_crypto_audit_mismatches_total", "Minutes and settlements not stored as the exchange has them", ["kind"]
)
AUDIT_CORRECTED = Counter("qlib_crypto_audit_corrected_total", "Those of them that were mended", ["kind"])
AUDIT_FAILED = Counter("qlib_crypto_audit_failed_total", "Looks that came to no result")
AUDIT_LAST = Gauge("qlib_crypto_audit_last_run_seconds", "When a page was compared last, Unix seconds")
