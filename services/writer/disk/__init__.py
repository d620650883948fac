"""What lies on disk: day files, the ledger, and what may be deleted."""
