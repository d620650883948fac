"""Where and how a row rests."""
