"""Whether every minute is accounted for."""
