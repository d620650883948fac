"""A second exchange, unlike OKX in everything that an exchange is free to choose."""
