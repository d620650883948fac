"""What Qlib itself reads, in its own environment."""
