"""The port of the api."""

import socket

from services.api.__main__ import listen


def test_no_answer_waits_for_an_acknowledgement():
    """Nagle's algorithm is off: else the body of an answer is 40 ms behind its head."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
