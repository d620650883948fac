"""The exchange OKX: its spelling and its REST interface. A new exchange is a new package beside this one."""
