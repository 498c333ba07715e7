"""Bytes that nobody sends by accident."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import dns.exception
import dns.message
import dns.reversename
import pytest
from dns_network import network, picture, task
from hypothesis import given
from hypothesis import strategies as st

from agent.network.dns.answers import Verdict, answer
from agent.network.dns.forward import answers
from agent.network.dns.wire import (
    HEADER,
    LONGEST_NAME,
    QR,
    Malformed,
    labels,
    parse,
    reversed_address,
    wire_name,
)
from agent.rpc.messages import OverlayService

ME = "10.0.1.5"
NAMES = picture(
    network(
        "front",
        "10.0.1.0/24",
        [OverlayService("s", "web")],
        [task(f"10.0.1.{n}", f"web.{n}.x", service="s") for n in range(2, 200)],
    )
)
QUERY = dns.message.make_query("web", "A", use_edns=0).to_wire()


def header(
    questions: int = 1, answers: int = 0, authorities: int = 0, additional: int = 0, flags: int = 0x0100
) -> bytes:
    return HEADER.pack(7, flags, questions, answers, authorities, additional)


def judge(message: bytes) -> int | Verdict:
    """What became of it: a response code, or the verdict. Any answer is well-formed and has the query's id."""
    said = answer(message, ME, NAMES)
    if isinstance(said, Verdict):
        return said
    assert said[:2] == message[:2]
    assert len(said) <= 1232
    dns.message.from_wire(said)
    assert HEADER.unpack_from(said)[1] & QR
    return HEADER.unpack_from(said)[1] & 0xF


@given(st.binary(max_size=600))
def test_any_bytes_get_a_verdict(message: bytes) -> None:
    judge(message)


@given(st.binary(max_size=300), st.integers(0, 3), st.integers(0, 3))
def test_any_bytes_after_a_header_get_a_verdict(body: bytes, records: int, additional: int) -> None:
    judge(header(1, records, 0, additional) + body)


@given(st.data())
def test_a_query_with_any_byte_changed_or_cut_gets_a_verdict(data: st.DataObject) -> None:
    message = bytearray(QUERY)
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    judge(bytes(message[: data.draw(st.integers(0, len(message)))]))


@given(st.lists(st.binary(min_size=1, max_size=63), max_size=8), st.integers(0, 65535), st.sampled_from([1, 3, 255]))
def test_names_of_any_bytes_are_read_as_they_are(parts: list[bytes], kind: int, klass: int) -> None:
    name = b"".join(bytes([len(part)]) + part for part in parts) + b"\0"
    message = header() + name + struct.pack("!HH", kind, klass)
    if len(name) > LONGEST_NAME:
        with pytest.raises(Malformed):
            parse(message)
        assert judge(message) == 1
    else:
        assert labels(parse(message).name) == [part.lower() for part in parts]
        judge(message)


@given(st.binary(max_size=400))
def test_what_another_implementation_reads_as_one_plain_question_we_read_alike(body: bytes) -> None:
    message = header() + body
    try:
        theirs = dns.message.from_wire(message, ignore_trailing=True)
        ours = parse(message)
    except (dns.exception.DNSException, Malformed):
        return
    assert theirs.question[0].name.to_wire().lower() == ours.name
    assert theirs.question[0].rdtype == ours.type


@pytest.mark.parametrize(
    "body",
    [
        b"\xc0\x0c\x00\x01\x00\x01",
        b"\x03web\xc0\x0c\x00\x01\x00\x01",
        b"\xc0\xff\x00\x01\x00\x01",
        b"\x40" + b"a" * 64 + b"\x00\x00\x01\x00\x01",
        b"\x80\x00\x00\x01\x00\x01",
        b"\x3f" + b"a" * 20,
        b"\x03web\x00\x00\x01\x00",
        b"\x03web",
        b"",
        b"\x01a" * 200 + b"\x00\x00\x01\x00\x01",
    ],
    ids=[
        "a loop",
        "a loop after a label",
        "forward",
        "64 bytes",
        "kind 2",
        "cut in a label",
        "cut in the class",
        "no end",
        "nothing",
        "too long",
    ],
)
def test_a_broken_question_is_a_format_error(body: bytes) -> None:
    assert judge(header() + body) == 1


@pytest.mark.parametrize(
    "records",
    [
        b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\xff\xff",
        b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00",
        b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00" * 2,
        b"\x01a\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00" * 2,
        b"\xc0",
        b"\x80\x00",
    ],
)
def test_broken_records_after_the_question_are_a_format_error(records: bytes) -> None:
    assert judge(header(additional=2) + b"\x03web\0\0\x01\0\x01" + records) == 1


def test_pointers_of_records_are_not_followed() -> None:
    loop = b"\xc0\x15\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00"
    assert judge(header(additional=1) + b"\x03web\0\0\x01\0\x01" + loop) == 0


@pytest.mark.parametrize("questions", [0, 2, 65535])
def test_one_question_a_message(questions: int) -> None:
    assert judge(header(questions) + QUERY[12:]) == 1


def test_many_announced_records_cost_nothing() -> None:
    assert judge(header(1, 65535, 65535, 65535) + b"\x03web\0\0\x01\0\x01") == 1


@pytest.mark.parametrize("message", [b"", b"\0" * 11, header(flags=QR) + QUERY[12:]])
def test_what_is_no_query_is_not_answered(message: bytes) -> None:
    assert judge(message) is Verdict.DROP


@given(st.binary(max_size=200))
def test_no_bytes_but_an_answer_are_an_answer(reply: bytes) -> None:
    if answers(reply, QUERY):
        assert reply[:2] == QUERY[:2]
        assert HEADER.unpack_from(reply)[1] & QR


@given(st.ip_addresses())
def test_a_reverse_name_leads_back_to_its_address(address: IPv4Address | IPv6Address) -> None:
    # The other implementation asks for the IPv4 address that is inside an IPv6 one.
    inner = address.ipv4_mapped if address.version == 6 else None
    assert reversed_address(dns.reversename.from_address(str(address)).to_wire()) == str(inner or address)


@given(st.text(max_size=300))
def test_any_text_is_a_name_or_none(text: str) -> None:
    wire = wire_name(text)
    if wire is not None:
        assert len(wire) <= LONGEST_NAME
        assert parse(header() + wire + b"\0\x01\0\x01").name == wire
