"""OKX's own protocol, REST and WebSocket."""
