"""What a person types: run, demo, and the commands that ask a running system."""
