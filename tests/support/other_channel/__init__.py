"""A channel that the product does not have: trades, numbered, of the second exchange."""
