"""`host:port`, as people and messages write it."""

from __future__ import annotations


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `10.0.0.1:2377`, `[fe80::1]:2377` or `name:2377`; ValueError says what is wrong."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is not an address: expected HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{address!r} is not an address: write an IPv6 address in brackets, [ADDRESS]:PORT")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """The opposite."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def socket_address(name: object) -> str:
    """What `getpeername` and friends give, as `host:port`."""
    if isinstance(name, tuple) and len(name) >= 2:
        return join_address(str(name[0]), int(name[1]))
    return "an unknown address"
