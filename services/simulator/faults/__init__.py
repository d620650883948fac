"""What can go wrong, and when it does."""
