"""Whether the system is healthy now."""
