"""One TLS connection without its socket: bytes in, bytes out."""

from __future__ import annotations

import contextlib
import ssl
from typing import cast

_RECORD = 16 * 1024
"""Plain bytes that one TLS record holds."""


class TlsSession:
    """The state of one TLS connection. Any method may raise ssl.SSLError; what is left in `take` is then to be sent."""

    def __init__(self, context: ssl.SSLContext, *, server_side: bool) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self.established = False
        """Whether the handshake is done on this side. In TLS 1.3 the server may still refuse a client's certificate."""
        self.ended = False
        """Whether the other side said that nothing more will come."""
        self.error: ssl.SSLError | None = None
        """What broke the session behind bytes that could still be read; the next `read` raises it."""

    def advance(self) -> bool:
        """Go on with the handshake; True once it is done."""
        if not self.established:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                return False
            self.established = True
        return True

    def put(self, data: memoryview | bytes) -> None:
        """Take in bytes from the socket."""
        self._incoming.write(data)

    def read(self, into: memoryview) -> int:
        """Plain bytes that can be had, as many as fit; 0 when there are none for now."""
        if self.error is not None:
            raise self.error
        count = 0
        room = len(into)
        try:
            while count < room:
                # With a buffer the module gives a count, whatever its annotations say.
                got = cast(int, self._tls.read(room - count, into[count:]))
                if not got:
                    self.ended = True
                    break
                count += got
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            if not count:
                raise
            self.error = error
        return count

    def write(self, data: bytes) -> None:
        """Encrypt; OpenSSL takes a record a call."""
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view[:_RECORD]) :]

    def end(self) -> None:
        """Tell the other side that nothing more will come."""
        # It raises while the other side has not said the same, and when TLS is broken: there is nothing more to say.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()

    def take(self) -> bytes:
        """Bytes for the socket."""
        return self._outgoing.read()

    def peer_certificate(self) -> bytes | None:
        """The other side's certificate (DER), or None when it showed none."""
        return self._tls.getpeercert(binary_form=True)
