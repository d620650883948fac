"""How a row travels: Redis Streams, and a few keys."""
