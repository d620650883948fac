"""The api: whether the system is healthy, and what is wrong where it is not. It only reads."""
