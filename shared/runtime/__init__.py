"""How a process lives: settings, logs, heartbeat, clean stop."""
