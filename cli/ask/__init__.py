"""What a person asks a running system."""
