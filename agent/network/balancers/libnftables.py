"""nftables' own library, called through ctypes.

Why not the `nft` program: a process each change costs 16 to 24 ms, the library 0.7 ms. Why not the project's Python module:
distributions ship it for their own interpreter only, and it is a wrapper of these very calls. Why not netlink messages of
our own: maps, verdicts and NAT are some thirty nested kinds of message that the library encodes from a page of text.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools


class RulesetRefused(OSError):
    """The kernel or the library refused a transaction; nothing of it was done."""


class Transactions:
    """A connection to nftables in the network namespace of the thread that first calls `run`. Blocking, one call at a time.

    It is kept open between transactions: a socket that is closed after a transaction waits for a grace period of the kernel
    (10 ms and more), the transaction itself takes less than one.
    """

    def __init__(self) -> None:
        self._context: int | None = None

    def run(self, commands: str) -> str:
        """One transaction; what it printed. All of it happens or nothing does, and no packet sees half of it.

        The calling thread must be in the same namespace each time. RulesetRefused carries the library's own text; OSError
        when there is no library or netlink is not allowed.
        """
        library = _library()
        if self._context is None:
            self._context = library.nft_ctx_new(0)
            if self._context is None:
                raise OSError("no connection to nftables could be made: out of memory, or netlink is not allowed")
            library.nft_ctx_buffer_output(self._context)
            library.nft_ctx_buffer_error(self._context)
        result = library.nft_run_cmd_from_buffer(self._context, commands.encode())
        # Reading a buffer empties it, so both are read each time.
        output = (library.nft_ctx_get_output_buffer(self._context) or b"").decode(errors="replace")
        said = (library.nft_ctx_get_error_buffer(self._context) or b"").decode(errors="replace").strip()
        if result != 0:
            raise RulesetRefused(f"nftables: {said or 'refused without a word'}")
        return output

    def close(self) -> None:
        """Give the connection up. Idempotent."""
        if self._context is not None:
            _library().nft_ctx_free(self._context)
            self._context = None


@functools.cache
def _library() -> ctypes.CDLL:
    name = ctypes.util.find_library("nftables") or "libnftables.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        raise OSError("libnftables is not installed (Debian: apt install libnftables1)") from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_free.restype = None
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).restype = ctypes.c_int
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).restype = ctypes.c_char_p
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.nft_run_cmd_from_buffer.restype = ctypes.c_int
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library
