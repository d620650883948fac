"""What is stored, compared with what the exchange says today."""
