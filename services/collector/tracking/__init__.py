"""What is wanted, and what is missing."""
