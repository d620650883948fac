"""Builders for tests: only what matters to a test shows in it."""
