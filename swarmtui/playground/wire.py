"""Messages between the session, its keeper and the instances: JSON objects, one a line, over a socket pair.

The end of a peer is the end of its socket, which the kernel closes however the peer ended. That is what makes a playground
vanish when its owner is killed: nobody has to notice, everyone reads the end of a file.
"""

from __future__ import annotations

import json
import socket
from typing import Any

Message = dict[str, Any]


class Gone(Exception):
    """The other end is closed."""


class Wire:
    """One end, for programs without an event loop. It blocks: messages are short, and a selector tells when
    there is something to receive."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._buffer = b""

    def fileno(self) -> int:
        """For selectors."""
        return self._socket.fileno()

    def send(self, message: Message) -> None:
        """Send one message. A peer that is gone is found out on receiving, not here."""
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            return

    def receive(self) -> list[Message]:
        """What has arrived, at least one read's worth. Raises Gone when the other end is closed."""
        try:
            chunk = self._socket.recv(1 << 16)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            raise Gone
        lines = (self._buffer + chunk).split(b"\n")
        self._buffer = lines.pop()
        return [json.loads(line) for line in lines]

    def receive_one(self) -> Message:
        """Wait for the next message, of a peer that then waits for an answer."""
        messages = self.receive()
        while not messages:
            messages = self.receive()
        (message,) = messages
        return message

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
