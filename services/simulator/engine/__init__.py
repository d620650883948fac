"""A market and its clock, whatever the exchange that shows it."""
