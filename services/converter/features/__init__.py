"""Minutes of a symbol, turned into the fields of Qlib."""
