"""One HTTP exchange between managers, byte by byte: whole answers come whole, everything else breaks off."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.api.exchange import BrokenOff, read_body, read_head

WHOLE = {
    b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello": (201, b"hello"),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n": (200, b"hello"),
    b"HTTP/1.1 204 No Content\r\n\r\n": (204, b""),
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n": (200, b""),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n": (200, b""),
}

STRANGE = [
    b"",
    b"SSH-2.0-OpenSSH\r\n\r\n",
    b"HTTP/1.1 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\nhel\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
]


async def read(raw: bytes) -> tuple[int, bytes]:
    reader = asyncio.StreamReader()
    reader.feed_data(raw)
    reader.feed_eof()
    head = await read_head(reader)
    return head.status, b"".join([piece async for piece in read_body(reader, head)])


@pytest.mark.parametrize(("raw", "told"), WHOLE.items())
async def test_whole_answers(raw: bytes, told: tuple[int, bytes]) -> None:
    assert await read(raw) == told


@pytest.mark.parametrize("raw", WHOLE)
async def test_an_answer_that_is_cut_anywhere_is_not_taken_for_whole(raw: bytes) -> None:
    for end in range(len(raw)):
        with pytest.raises(BrokenOff):
            await read(raw[:end])


@pytest.mark.parametrize("raw", STRANGE)
async def test_what_is_no_answer(raw: bytes) -> None:
    with pytest.raises(BrokenOff):
        await read(raw)


@given(st.sampled_from(list(WHOLE)), st.data())
def test_changed_bytes_raise_nothing_else(raw: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(raw) - 1))
    changed = raw[:at] + data.draw(st.binary(min_size=1, max_size=3)) + raw[at + 1 :]
    try:
        status, _ = asyncio.run(read(changed))
    except BrokenOff:
        return
    assert 200 <= status <= 999
