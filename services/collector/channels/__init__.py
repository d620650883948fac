"""What a row means, and what heals a gap."""
