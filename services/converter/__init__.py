"""The converter: makes what is durable readable by Qlib."""
