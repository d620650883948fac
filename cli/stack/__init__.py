"""The whole system on one machine, without Docker: up inside of a block, and gone after it."""

from cli.machine import free_port, get_json, listens, open_here
from cli.place import API_URL_FILE, ROOT
from cli.stack.folder import StackError, clear, tail
from cli.stack.signals import end_on_signals
from cli.stack.stack import SERVICES, Stack
from cli.stack.supervisor import Program

__all__ = [
    "API_URL_FILE",
    "ROOT",
    "SERVICES",
    "Program",
    "Stack",
    "StackError",
    "clear",
    "end_on_signals",
    "free_port",
    "get_json",
    "listens",
    "open_here",
    "tail",
]
