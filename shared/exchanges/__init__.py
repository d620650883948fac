"""What an exchange says, in our words. One package per exchange."""
