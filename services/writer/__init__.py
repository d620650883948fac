"""The writer: makes rows durable, once."""
