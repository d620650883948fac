"""Qlib's folder: bins, calendars, instruments."""
