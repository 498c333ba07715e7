"""Addresses and contexts: which engine is meant, and what is said when it cannot be used."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmtui.contexts.resolve import AGENT_SOCKET, ENGINE_SOCKET, list_contexts, resolve
from swarmtui.docker_api.address import EngineAddress, parse_address
from swarmtui.docker_api.errors import BadAddress


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:///run/x.sock", EngineAddress(socket="/run/x.sock")),
        ("/run/x.sock", EngineAddress(socket="/run/x.sock")),
        ("tcp://10.0.0.1:2375", EngineAddress(host="10.0.0.1", port=2375)),
        ("10.0.0.1:2399", EngineAddress(host="10.0.0.1", port=2399)),
        ("tcp://example.org", EngineAddress(host="example.org", port=2375)),
        ("tcp://[::1]:2375", EngineAddress(host="::1", port=2375)),
        ("http://example.org:80/", EngineAddress(host="example.org", port=80)),
    ],
)
def test_docker_hosts_forms_are_understood(text: str, expected: EngineAddress) -> None:
    assert parse_address(text) == expected
    assert parse_address(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("unix://" + "/a" * 60, "107"),
        ("unix://relative.sock", "absolute"),
        ("tcp://host:99999", "port"),
        ("tcp://host:0", "port"),
        ("tcp://", "no host"),
        ("tcp://host:1/path", "HOST:PORT"),
        ("tcp://user@host:1", "HOST:PORT"),
        ("ssh://root@host", "forward the socket"),
        ("npipe:////./pipe/docker", "unknown kind"),
    ],
)
def test_a_wrong_address_says_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(BadAddress, match=words):
        parse_address(text)


def test_the_bound_is_counted_in_bytes() -> None:
    parse_address("unix:///" + "a" * 106)
    with pytest.raises(BadAddress, match="108 bytes"):
        parse_address("unix:///" + "a" * 107)
    with pytest.raises(BadAddress, match="107"):
        parse_address("unix:///" + "ä" * 54)


@given(st.text())
def test_any_text_is_an_address_or_a_clear_error(text: str) -> None:
    with contextlib.suppress(BadAddress):
        again = parse_address(text)
        assert parse_address(str(again)).socket == again.socket


def write_context(folder: Path, name: str, host: str) -> None:
    digest = hashlib.sha256(name.encode()).hexdigest()
    place = folder / "contexts" / "meta" / digest
    place.mkdir(parents=True)
    endpoints = {"docker": {"Host": host, "SkipTLSVerify": False}}
    (place / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": endpoints}))


def test_the_order_is_dockers(tmp_path: Path) -> None:
    write_context(tmp_path, "prod", "tcp://prod:2375")
    write_context(tmp_path, "test", "unix:///run/test.sock")
    env = {"DOCKER_CONFIG": str(tmp_path)}

    def at(**more: str) -> str:
        return str(resolve(environ={**env, **more}, exists=lambda path: False).address)

    assert at() == f"unix://{ENGINE_SOCKET}"
    (tmp_path / "config.json").write_text('{"currentContext": "test", "auths": {}}')
    assert at() == "unix:///run/test.sock"
    assert at(DOCKER_CONTEXT="prod") == "tcp://prod:2375"
    assert at(DOCKER_CONTEXT="prod", DOCKER_HOST="tcp://h:1") == "tcp://h:1"
    assert str(resolve(None, "prod", environ={**env, "DOCKER_HOST": "tcp://h:1"}).address) == "tcp://prod:2375"
    assert str(resolve("tcp://x:1", None, environ={**env, "DOCKER_HOST": "tcp://h:1"}).address) == "tcp://x:1"
    assert at(DOCKER_CONTEXT="default") == f"unix://{ENGINE_SOCKET}"
    with pytest.raises(BadAddress, match="exclude each other"):
        resolve("tcp://x:1", "prod", environ=env)


def test_the_agents_socket_comes_before_the_engines() -> None:
    found = resolve(environ={"HOME": "/nowhere"}, exists=lambda path: path == AGENT_SOCKET)
    assert found.address.socket == AGENT_SOCKET


def test_an_unknown_context_names_those_that_there_are(tmp_path: Path) -> None:
    write_context(tmp_path, "prod", "tcp://prod:2375")
    with pytest.raises(BadAddress, match="default, prod"):
        resolve(None, "nope", environ={"DOCKER_CONFIG": str(tmp_path)})


def test_broken_files_are_told_and_do_not_hide_others(tmp_path: Path) -> None:
    write_context(tmp_path, "prod", "tcp://prod:2375")
    write_context(tmp_path, "far", "ssh://far")
    broken = tmp_path / "contexts" / "meta" / hashlib.sha256(b"broken").hexdigest()
    broken.mkdir()
    (broken / "meta.json").write_text("{")
    names = [context.name for context in list_contexts({"DOCKER_CONFIG": str(tmp_path)})]
    assert names == ["default", "prod"]
    with pytest.raises(BadAddress, match="cannot be read"):
        resolve(None, "broken", environ={"DOCKER_CONFIG": str(tmp_path)})
    (tmp_path / "config.json").write_text("not json")
    with pytest.raises(BadAddress, match=r"config\.json"):
        resolve(environ={"DOCKER_CONFIG": str(tmp_path)})


def test_tls_files_come_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x")
    env = {"DOCKER_HOST": "tcp://h", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
    address = resolve(environ=env).address
    assert address.port == 2376
    assert address.tls is not None
    assert address.tls.verify
    assert address.tls.ca == tmp_path / "ca.pem"
    assert address.tls.key is None
