"""Frames, hellos and addresses, which are pure: any bytes, however cut."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.api_types.node import NodeRole
from agent.api_types.secret import Secret, SecretSpec
from agent.api_types.times import SECOND
from agent.pki.certificates import CertificateFacts
from agent.rpc import messages
from agent.rpc.addresses import join_address, split_address
from agent.rpc.errors import ProtocolViolation
from agent.rpc.frames import (
    HEADER,
    MAX_BODY,
    Frame,
    FrameParser,
    FrameType,
    decode_count,
    decode_text,
    encode_count,
    encode_frame,
    encode_text,
)
from agent.rpc.hello import MAX_CLOCK_DIFFERENCE, Hello, decode_hello, encode_hello, objection, spell
from agent.rpc.protocols import SPOKEN, Protocols

frames = st.builds(
    Frame, st.integers(0, 2**32 - 1), st.sampled_from(FrameType), st.binary(max_size=300) | st.just(b"x" * MAX_BODY)
)


@given(st.lists(frames, max_size=10), st.data())
def test_frames_survive_any_cutting(sent: list[Frame], data: st.DataObject) -> None:
    wire = b"".join(encode_frame(*frame) for frame in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=20)))
    parser = FrameParser()
    received: list[Frame] = []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        received += parser.feed(memoryview(wire)[start:end])
    assert received == sent


@given(st.lists(frames, min_size=1, max_size=3))
def test_frames_survive_byte_by_byte(sent: list[Frame]) -> None:
    short = [Frame(frame.stream, frame.kind, frame.body[:50]) for frame in sent]
    parser = FrameParser()
    received: list[Frame] = []
    for octet in b"".join(encode_frame(*frame) for frame in short):
        received += parser.feed(bytes([octet]))
    assert received == short


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_any_bytes_are_frames_or_a_violation(pieces: list[bytes]) -> None:
    """And what is kept never grows beyond one frame."""
    parser = FrameParser()
    with contextlib.suppress(ProtocolViolation):
        for piece in pieces:
            parser.feed(piece)
            assert len(parser._rest) <= HEADER.size + MAX_BODY


def test_a_frame_that_is_too_long() -> None:
    parser = FrameParser()
    assert parser.feed(HEADER.pack(MAX_BODY, 1, FrameType.BYTES)) == []
    with pytest.raises(ProtocolViolation, match=f"a frame of {MAX_BODY + 1} bytes, where {MAX_BODY} are allowed"):
        FrameParser().feed(HEADER.pack(MAX_BODY + 1, 1, FrameType.BYTES))
    with pytest.raises(ValueError, match="are allowed"):
        encode_frame(1, FrameType.BYTES, b"x" * (MAX_BODY + 1))


@given(st.text())
def test_texts(text: str) -> None:
    """A text comes over as it is, on one line."""
    read = decode_text(encode_text(text))
    assert read.isprintable()
    assert all(got == sent or (got == " " and not sent.isprintable()) for got, sent in zip(read, text, strict=True))


def test_an_endless_text_is_cut() -> None:
    assert len(decode_text(encode_text("ü" * 1_000_000))) == 4000


@given(st.binary(max_size=20))
def test_any_bytes_are_a_count_a_text_or_a_violation(body: bytes) -> None:
    with contextlib.suppress(ProtocolViolation):
        assert 0 < decode_count(body) <= 1 << 31
    with contextlib.suppress(ProtocolViolation):
        assert isinstance(decode_text(body), str)
    assert decode_count(encode_count(17)) == 17


# -- hello

NOW = 1_790_000_000 * SECOND
CERTIFICATE = CertificateFacts("w1", NodeRole.WORKER, "c1", NOW - 3600 * SECOND, NOW + 86400 * SECOND)
HELLO = Hello(SPOKEN.newest, "w1", NOW, "control")


def judge(
    hello: Hello = HELLO,
    certificate: CertificateFacts | None = CERTIFICATE,
    *,
    now: int = NOW,
    difference: int = 0,
    cluster_id: str | None = "c1",
) -> str | None:
    return objection(hello, certificate, node_id="m1", cluster_id=cluster_id, now=now, difference=difference)


def test_who_goes_together() -> None:
    assert judge() is None
    assert judge(cluster_id=None) is None
    assert judge(difference=MAX_CLOCK_DIFFERENCE - 1) is None
    assert judge(difference=1 - MAX_CLOCK_DIFFERENCE) is None
    join = Hello(SPOKEN.newest, "", NOW, "join")
    assert judge(join, None) is None
    assert judge(HELLO, None) == "this needs a node certificate: join the cluster first"
    assert judge(Hello(SPOKEN.newest, "w2", NOW, "control")) == "the hello is of node w2, the certificate of node w1"
    assert judge(cluster_id="c2") == "node w1 is part of cluster c1, node m1 of cluster c2"


def test_clocks_come_before_certificates() -> None:
    """A node a day behind would find every certificate that was just signed invalid; the clock is what is wrong."""
    text = judge(now=NOW - 86400 * SECOND, difference=86400 * SECOND)
    assert text == (
        "the clocks differ by 1 d: node w1 says 2026-09-21T14:13:20Z, node m1 says 2026-09-20T14:13:20Z; "
        "set them (NTP) and try again"
    )


def test_dates_of_a_certificate() -> None:
    assert judge(now=CERTIFICATE.not_after - 1) is None
    assert judge(now=CERTIFICATE.not_before) is None
    assert "expired on 2026-09-22T14:13:20Z, 1 h 1 min ago by the clock of node m1" in (
        judge(now=CERTIFICATE.not_after + 3660 * SECOND) or ""
    )
    assert "is valid from 2026-09-21T13:13:20Z, in 5.00 s by the clock of node m1" in (
        judge(now=CERTIFICATE.not_before - 5 * SECOND) or ""
    )


def test_hellos() -> None:
    assert decode_hello(encode_hello(HELLO)) == HELLO
    newer = msgspec.msgpack.encode({"protocol": 9, "oldest": 7, "anything": [1, 2], "node_id": 7})
    with pytest.raises(ProtocolViolation, match=f"one speaks {SPOKEN}, the other protocols 7 to 9; upgrade the agent"):
        decode_hello(newer)
    alone = msgspec.msgpack.encode({"protocol": 1, "node_id": "w1", "clock": NOW, "purpose": "control"})
    with pytest.raises(ProtocolViolation, match=f"one speaks protocol 1, the other {SPOKEN}; upgrade the agent"):
        decode_hello(alone)
    assert decode_hello(alone, Protocols(1, 3)).protocols == Protocols(1, 1)
    for protocol, oldest in ((1, 2), (-1, 0), (0, 0), (3, -1)):
        impossible = msgspec.msgpack.encode({"protocol": protocol, "oldest": oldest})
        with pytest.raises(ProtocolViolation, match="a hello with the impossible protocol"):
            decode_hello(impossible)
    more = msgspec.msgpack.encode({**msgspec.structs.asdict(HELLO), "more": True})
    assert decode_hello(more) == HELLO
    for changed in ({"clock": -1}, {"purpose": "fun"}, {"clock": "x"}, {"protocol": None}):
        with pytest.raises(ProtocolViolation):
            decode_hello(msgspec.msgpack.encode({**msgspec.structs.asdict(HELLO), **changed}))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_hello_or_a_violation(body: bytes) -> None:
    with contextlib.suppress(ProtocolViolation):
        assert SPOKEN.common(decode_hello(body).protocols) is not None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (0.25, "0.25 s"),
        (59, "59 s"),
        (3600, "1 h"),
        (3599, "59 min 59 s"),
        (93784, "1 d 2 h"),
        (86405, "1 d"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert spell(int(seconds * SECOND)) == text


# -- addresses and messages


@given(st.ip_addresses(), st.integers(0, 65535))
def test_addresses(host: object, port: int) -> None:
    assert split_address(join_address(str(host), port)) == (str(host), port)


@pytest.mark.parametrize("text", ["", "host", "host:", ":x", "::1:80", "host:99999", "host:٣", "[::1]"])
def test_texts_that_are_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="is not an address"):
        split_address(text)


def test_every_message_may_be_sent() -> None:
    """AnyMessage, which decodes, names them all, and no two have one tag."""
    known = set(messages.AnyMessage.__args__)
    declared = {
        kind
        for kind in vars(messages).values()
        if isinstance(kind, type) and issubclass(kind, messages.Message) and kind is not messages.Message
    }
    assert known == declared


def test_secrets_are_not_shown() -> None:
    shown = repr(messages.JoinOpen(secret="very-secret", request=b"", hostname="h"))
    assert "very-secret" not in shown
    assert "hostname='h'" in shown
    secret = Secret(id="s1", spec=SecretSpec(name="password", data=b"hunter2"))
    shown = repr(messages.Assignments(index=7, complete=True, secrets=[secret]))
    assert "hunter2" not in shown
    assert "s1" in shown
