"""Commands about the swarm as a whole: managers, keys, certificates, backups; against an engine over a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result
from client_fake_engine import FakeEngine, in_a_thread, make_node, problem

from swarmtui.cli import cli
from swarmtui.commands import swarm_trust
from swarmtui.operations import backup_file

MANAGERS: dict[str, Any] = {
    "term": 4,
    "leader": "n1",
    "quorum": True,
    "stale": False,
    "committed": 39,
    "missing": ["n3"],
    "members": [
        {"id": "n1", "hostname": "node1", "address": "10.0.0.1:2377", "role": "leader", "voter": True, "reachable": True,
         "match": 39, "lag": 0},
        {"id": "n2", "hostname": "node2", "address": "10.0.0.2:2377", "role": "follower", "voter": True,
         "reachable": True, "match": 38, "lag": 1},
        {"id": "n3", "hostname": "node3", "address": "10.0.0.3:2377", "role": "follower", "voter": True,
         "reachable": False, "match": 0, "lag": 39},
    ],
}  # fmt: skip


class Trust:
    """The swarm's settings, keys and root, as an agent has them."""

    def __init__(self, engine: FakeEngine) -> None:
        self.spec: dict[str, Any] = {"Labels": {}, "CAConfig": {"NodeCertExpiry": 7}}
        self.version = 3
        self.queries: list[dict[str, str]] = []
        self.key = "SWMKEY-1-aaa"
        self.root = "old root\n"
        self.rotating = 0
        self.out_of_sequence = 0
        self.locked = "active"
        self.unlocked_with = ""
        routes = {
            ("GET", "/swarm"): self._show,
            ("POST", "/swarm/update"): self._update,
            ("GET", "/swarm/unlockkey"): self._unlock_key,
            ("POST", "/swarm/unlock"): self._unlock,
            ("GET", "/info"): self._info,
        }
        engine.overrides.update(routes)

    async def _show(self, request: web.Request) -> web.Response:
        if self.rotating:
            self.rotating -= 1
            self.root = self.root if self.rotating else "new root\n"
        shown = {"Version": {"Index": self.version}, "Spec": self.spec, "TLSInfo": {"TrustRoot": self.root}}
        return web.json_response({**shown, "RootRotationInProgress": self.rotating > 0})

    async def _update(self, request: web.Request) -> web.Response:
        if self.out_of_sequence:
            self.out_of_sequence -= 1
            self.version += 1
            return problem(500, "rpc error: code = Unknown desc = update out of sequence")
        assert int(request.query["version"]) == self.version
        before = self.spec
        self.spec = await request.json()
        self.version += 1
        self.queries.append(dict(request.query))
        if request.query["rotateManagerUnlockKey"] == "true":
            self.key = "SWMKEY-1-bbb"
        if self.spec["CAConfig"].get("ForceRotate", 0) != before["CAConfig"].get("ForceRotate", 0):
            self.rotating = 3
        return web.Response()

    async def _unlock_key(self, request: web.Request) -> web.Response:
        on = (self.spec.get("EncryptionConfig") or {}).get("AutoLockManagers")
        return web.json_response({"UnlockKey": self.key if on else ""})

    async def _unlock(self, request: web.Request) -> web.Response:
        self.unlocked_with = (await request.json())["UnlockKey"]
        if self.unlocked_with != self.key:
            return problem(400, "swarm could not be unlocked: invalid key provided")
        return web.Response()

    async def _info(self, request: web.Request) -> web.Response:
        return web.json_response({"Name": "node1", "Swarm": {"LocalNodeState": self.locked}})


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with in_a_thread(FakeEngine()) as fake:
        yield fake


@pytest.fixture
def trust(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Trust:
    monkeypatch.setattr(swarm_trust, "POLL_SECONDS", 0.0)
    return Trust(engine)


def sw(engine: FakeEngine, *arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["-H", str(engine.address), *arguments], input=typed, catch_exceptions=False)


def ok(engine: FakeEngine, *arguments: str, typed: str | None = None) -> str:
    result = sw(engine, *arguments, typed=typed)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(engine: FakeEngine, *arguments: str, typed: str | None = None) -> str:
    result = sw(engine, *arguments, typed=typed)
    assert result.exit_code == 1, result.output
    return result.stderr.strip()


def answer_with(engine: FakeEngine, method: str, path: str, answer: Any, status: int = 200) -> None:
    async def give(request: web.Request) -> web.Response:
        return web.json_response(answer, status=status)

    engine.overrides[(method, path)] = give


def test_managers(engine: FakeEngine) -> None:
    answer_with(engine, "GET", "/swarmtui/v1/managers", MANAGERS)
    header, *rows = ok(engine, "managers").splitlines()
    assert header.split() == ["MEMBER", "ADDRESS", "ROLE", "TERM", "INDEX", "LAG", "REACHABLE"]
    assert rows[0].split() == ["node1", "10.0.0.1:2377", "leader", "4", "39", "0", "yes"]
    assert rows[1].split() == ["node2", "10.0.0.2:2377", "follower", "4", "38", "1", "yes"]
    assert rows[2].split() == ["node3", "10.0.0.3:2377", "follower", "4", "-", "-", "no"]
    assert rows[-1] == "3 managers, 2 must answer, 1 may fail; 1 missing, 0 more may fail"
    found = json.loads(ok(engine, "managers", "--json"))
    assert (found["term"], found["leader"], found["quorum"], found["members"][2]["index"]) == (4, "node1", True, None)


def test_managers_without_a_quorum(engine: FakeEngine) -> None:
    lost = {**MANAGERS, "leader": "", "quorum": False, "stale": True, "missing": ["n2", "n3"]}
    answer_with(engine, "GET", "/swarmtui/v1/managers", lost)
    out = ok(engine, "managers")
    assert "no quorum: 2 of 3 managers must answer; missing: node2 (10.0.0.2:2377), node3 (10.0.0.3:2377)" in out
    found = json.loads(ok(engine, "managers", "--json"))
    assert (found["quorum"], found["stale"], found["members"][1]["reachable"]) == (False, True, False)


def test_managers_of_a_docker_swarm() -> None:
    with in_a_thread(FakeEngine(agent=False)) as engine:
        engine.put("nodes", make_node("n3", "node3", role="manager"))
        rows = ok(engine, "managers").splitlines()
        assert rows[1].split() == ["node1", "10.0.0.1:2377", "leader", "-", "-", "-", "yes"]
        assert rows[-1] == "2 managers, 2 must answer, 0 may fail"


def test_a_second_host_answers_when_the_first_does_not(engine: FakeEngine) -> None:
    out = CliRunner().invoke(cli, ["-H", "unix:///nowhere.sock", "-H", str(engine.address), "node", "ls", "-q"])
    assert out.stdout.splitlines() == ["n1", "n2"]
    gone = CliRunner().invoke(cli, ["-H", "unix:///nowhere.sock", "-H", "unix:///neither.sock", "node", "ls"])
    assert gone.exit_code == 1
    assert "cannot connect to" in gone.stderr
    bad = CliRunner().invoke(cli, ["-H", str(engine.address), "-H", "ftp://x", "node", "ls"])
    assert "unknown kind of address" in bad.stderr


def test_autolock_shows_its_key_once(engine: FakeEngine, trust: Trust) -> None:
    trust.out_of_sequence = 2
    out = ok(engine, "swarm", "update", "--autolock", "true")
    assert "Swarm updated." in out
    assert "SWMKEY-1-aaa" in out
    assert trust.spec == {
        "Labels": {},
        "CAConfig": {"NodeCertExpiry": 7},
        "EncryptionConfig": {"AutoLockManagers": True},
    }
    assert "SWMKEY" not in ok(engine, "swarm", "update", "--autolock=true", "--task-history-limit", "3")
    assert trust.spec["Orchestration"] == {"TaskHistoryRetentionLimit": 3}
    ok(engine, "swarm", "update", "--cert-expiry", "720h", "--dispatcher-heartbeat", "5s")
    assert trust.spec["CAConfig"]["NodeCertExpiry"] == 720 * 3600 * 10**9
    assert trust.spec["Dispatcher"] == {"HeartbeatPeriod": 5 * 10**9}
    assert sw(engine, "swarm", "update").exit_code == 2
    trust.out_of_sequence = 100
    assert "changes all the time" in refused(engine, "swarm", "update", "--autolock=false")


def test_the_unlock_key(engine: FakeEngine, trust: Trust) -> None:
    assert refused(engine, "swarm", "unlock-key") == "Error: no unlock key is set"
    assert "autolock is not turned on" in refused(engine, "swarm", "unlock-key", "--rotate")
    trust.spec["EncryptionConfig"] = {"AutoLockManagers": True}
    assert ok(engine, "swarm", "unlock-key", "-q") == "SWMKEY-1-aaa\n"
    out = ok(engine, "swarm", "unlock-key", "--rotate")
    assert "Successfully rotated manager unlock key." in out
    assert "SWMKEY-1-bbb" in out
    assert json.loads(ok(engine, "swarm", "unlock-key", "--json")) == {"UnlockKey": "SWMKEY-1-bbb"}


def test_unlocking(engine: FakeEngine, trust: Trust) -> None:
    assert refused(engine, "swarm", "unlock") == "Error: swarm is not locked"
    trust.locked = "inactive"
    assert refused(engine, "swarm", "unlock") == "Error: This node is not part of a swarm"
    trust.locked = "locked"
    assert "invalid key provided" in refused(engine, "swarm", "unlock", typed="nonsense\n")
    ok(engine, "swarm", "unlock", typed=f" {trust.key}\n")
    assert trust.unlocked_with == trust.key


def test_the_root_certificate(engine: FakeEngine, trust: Trust, tmp_path: Path) -> None:
    assert ok(engine, "swarm", "ca") == "old root\n"
    result = sw(engine, "swarm", "ca", "--rotate", "--cert-expiry", "1h")
    assert result.stdout == "new root\n"
    assert "0 of 2 nodes" in result.stderr or "2 of 2 nodes" in result.stderr
    assert trust.spec["CAConfig"] == {
        "NodeCertExpiry": 3600 * 10**9,
        "ForceRotate": 1,
        "SigningCACert": "",
        "SigningCAKey": "",
    }
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    certificate.write_text("C")
    key.write_text("K")
    given = ["--ca-cert", str(certificate), "--ca-key", str(key)]
    assert ok(engine, "swarm", "ca", "--rotate", "-d", *given) == ""
    assert (trust.spec["CAConfig"]["SigningCACert"], trust.spec["CAConfig"]["SigningCAKey"]) == ("C", "K")
    assert sw(engine, "swarm", "ca", "--rotate", "--ca-cert", str(certificate)).exit_code == 2
    assert sw(engine, "swarm", "ca", "-d").exit_code == 2
    assert json.loads(ok(engine, "swarm", "ca", "--json"))["RootRotationInProgress"] is True


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(backup_file, "COST", 1)
    file = tmp_path / "passphrase"
    file.write_text("correct horse\nsecond line\n")
    return str(file)


def bytes_at(engine: FakeEngine, data: bytes) -> None:
    async def give(request: web.Request) -> web.Response:
        return web.Response(body=data, content_type="application/octet-stream")

    engine.overrides[("GET", "/swarmtui/v1/backup")] = give


def test_a_backup_is_written_once_and_for_its_owner_alone(engine: FakeEngine, secret: str, tmp_path: Path) -> None:
    state = bytes(range(256)) * 1000
    bytes_at(engine, state)
    target = tmp_path / "b"
    ok(engine, "backup", "-o", str(target), "--passphrase-file", secret)
    assert target.stat().st_mode & 0o777 == 0o600
    with target.open("rb") as file:
        assert b"".join(backup_file.read_backup(file, "correct horse")) == state
    assert "is there already" in refused(engine, "backup", "-o", str(target), "--passphrase-file", secret)
    bytes_at(engine, b"newer")
    ok(engine, "backup", "-o", str(target), "--passphrase-file", secret, "--force")
    with target.open("rb") as file:
        assert b"".join(backup_file.read_backup(file, "correct horse")) == b"newer"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "passphrase"]


def test_a_backup_that_fails_leaves_no_file(engine: FakeEngine, secret: str, tmp_path: Path) -> None:
    target = str(tmp_path / "b")

    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half of it")
        assert request.transport is not None
        request.transport.abort()
        return response

    engine.overrides[("GET", "/swarmtui/v1/backup")] = cut
    assert "lost" in refused(engine, "backup", "-o", target, "--passphrase-file", secret)
    bytes_at(engine, b"")
    assert "empty" in refused(engine, "backup", "-o", target, "--passphrase-file", secret)
    answer_with(engine, "GET", "/swarmtui/v1/backup", {"message": "page not found"}, 404)
    assert "makes no backups" in refused(engine, "backup", "-o", target, "--passphrase-file", secret)
    bytes_at(engine, b"x")
    assert "cannot be written" in refused(engine, "backup", "-o", "/nowhere/b", "--passphrase-file", secret)
    assert "no terminal" in refused(engine, "backup", "-o", target)
    assert "cannot be read" in refused(engine, "backup", "-o", target, "--passphrase-file", "/nowhere/p")
    empty = tmp_path / "empty"
    empty.write_text("\n")
    assert "passphrase is needed" in refused(engine, "backup", "-o", target, "--passphrase-file", str(empty))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "passphrase"]


def test_a_restore_sends_what_was_saved(engine: FakeEngine, secret: str, tmp_path: Path) -> None:
    state = bytes(range(256)) * 1000
    bytes_at(engine, state)
    target = tmp_path / "b"
    ok(engine, "backup", "-o", str(target), "--passphrase-file", secret)
    received: list[tuple[bytes, dict[str, str]]] = []

    async def take(request: web.Request) -> web.Response:
        received.append((await request.read(), dict(request.query)))
        return web.json_response("n7")

    async def serve(request: web.Request) -> web.StreamResponse:
        return await take(request)

    engine.raw[("POST", "/swarmtui/v1/restore")] = serve
    assert "is in a swarm already" in refused(engine, "restore", str(target), "--passphrase-file", secret)
    answer_with(engine, "GET", "/info", {"Name": "node9", "Swarm": {"LocalNodeState": "inactive"}})
    out = ok(engine, "restore", str(target), "--passphrase-file", secret, "--advertise-addr", "10.0.0.9")
    assert "current node (n7)" in out
    assert received == [(state, {"listenAddr": "0.0.0.0:2377", "advertiseAddr": "10.0.0.9"})]
    received.clear()
    wrong = refused(engine, "restore", str(target), "--passphrase-file", "-", typed="wrong\n")
    assert "wrong passphrase" in wrong
    damaged = bytearray(target.read_bytes())
    damaged[-1] ^= 1
    target.write_bytes(bytes(damaged))
    assert "is damaged at byte" in refused(engine, "restore", str(target), "--passphrase-file", secret)
    assert received == [], "nothing is sent of what cannot be sent whole"
    assert sw(engine, "restore", str(tmp_path / "nothing")).exit_code == 2
