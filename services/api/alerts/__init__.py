"""What is wrong, and who is notified of it."""
