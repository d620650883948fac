"""The api: says whether the system is healthy, and where it is not. It only reads."""
