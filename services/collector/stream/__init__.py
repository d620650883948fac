"""Subscriptions, and whether they are alive."""
