"""Nodes at every stage of a root rotation meet each other, and newcomers join at every stage."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
from rpc_cluster import Heartbeat, TestCluster, listening

from agent.api_types.node import NodeRole
from agent.api_types.times import now_ns
from agent.pki.identity import NodeIdentity, NodeKey
from agent.pki.root import RootCA
from agent.pki.tokens import InvalidJoinToken, join_token
from agent.rpc.client import dial, fetch_root, join
from agent.rpc.errors import Refused
from agent.rpc.messages import JoinAnswer, JoinOpen, ManagerAddress
from agent.rpc.peer import Peer, Purpose

OLD = RootCA.create(now_ns)
NEW = RootCA.create(now_ns)
BRIDGE = NEW.cross_sign(OLD)
CLUSTER = TestCluster(root=OLD)


@dataclass(frozen=True)
class Stage:
    """What a node has come to: who signed its certificate, and whom it trusts."""

    signer: RootCA
    roots: bytes

    def identity(self, node_id: str) -> NodeIdentity:
        key = NodeKey.create()
        leaf = self.signer.sign(key.request(), node_id, NodeRole.MANAGER, cluster_id=CLUSTER.cluster_id, clock=now_ns)
        behind = BRIDGE if self.signer is NEW else b""
        return NodeIdentity.from_pem(leaf + behind, key.pem, self.roots)


STAGES = {
    "before": Stage(OLD, OLD.cert_pem),
    "told": Stage(OLD, OLD.cert_pem + NEW.cert_pem),
    "renewed": Stage(NEW, OLD.cert_pem + NEW.cert_pem),
    "after": Stage(NEW, NEW.cert_pem),
}
APART = {frozenset({"before", "after"}), frozenset({"told", "after"})}
"""Whoever trusts the new root alone knows no certificate of the old one: the rotation ends when nobody has one."""


@pytest.mark.parametrize(("here", "there"), list(itertools.product(STAGES, STAGES)))
async def test_nodes_at_any_two_stages(here: str, there: str) -> None:
    async with listening(CLUSTER, identity=STAGES[there].identity("manager1")) as listener:
        dialling = dial(listener.address, STAGES[here].identity("node2"), purpose=Purpose.CONTROL)
        if frozenset({here, there}) in APART:
            with pytest.raises(Refused, match=r"certificate authority|does not know who signed"):
                await dialling
            return
        async with await dialling as connection:
            stream = await connection.open("echo", Heartbeat())
            assert await stream.receive() == Heartbeat()
            assert connection.peer.node_id == "manager1"


class Admission:
    """A JoinService of a manager at some stage."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    async def issue(self, request: JoinOpen, peer: Peer) -> JoinAnswer:
        leaf = self.stage.signer.sign(
            request.request, "joined1", NodeRole.WORKER, cluster_id=CLUSTER.cluster_id, clock=now_ns
        )
        return JoinAnswer(
            node_id="joined1",
            role=NodeRole.WORKER,
            cluster_id=CLUSTER.cluster_id,
            certificate=leaf + (BRIDGE if self.stage.signer is NEW else b""),
            root=self.stage.roots,
            managers=[ManagerAddress("manager1", "127.0.0.1:1")],
        )


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("named", ["old", "new"])
async def test_joining_at_any_stage(stage: str, named: str) -> None:
    """A token admits where its root still (or already) leads to the manager's certificate; else it is refused in words,
    and its secret has not been shown."""
    digest = (OLD if named == "old" else NEW).digest
    token = join_token(digest, CLUSTER.worker_secret)
    manager = STAGES[stage]
    async with listening(CLUSTER, identity=manager.identity("manager1"), join=Admission(manager)) as listener:
        if named == "old" and stage != "after":
            answer = await join(listener.address, token, key := NodeKey.create())
            joined = NodeIdentity.from_pem(answer.certificate, key.pem, answer.root)
            assert joined.root_pem == manager.roots
            assert await fetch_root(listener.address, digest) == OLD.cert_pem
        elif named == "new" and stage in ("renewed", "after"):
            assert (await join(listener.address, token, NodeKey.create())).node_id == "joined1"
        elif named == "new" and stage == "told":
            # The manager knows the new root, but its own certificate is of the old one.
            with pytest.raises(Refused, match="certificate authority"):
                await join(listener.address, token, NodeKey.create())
        else:
            with pytest.raises(InvalidJoinToken, match=r"the root certificate of the cluster at .* is not the one"):
                await join(listener.address, token, NodeKey.create())


async def test_only_the_root_that_the_token_names_is_taken() -> None:
    """A stranger in the middle cannot add one of its own beside the right one."""
    stranger = RootCA.create(now_ns)
    forged = object.__new__(NodeIdentity)
    good = STAGES["before"].identity("manager1")
    forged.__dict__.update(good.__dict__, root_pem=stranger.cert_pem + good.root_pem)
    async with listening(CLUSTER, identity=forged, join=Admission(STAGES["before"])) as listener:
        assert await fetch_root(listener.address, OLD.digest) == OLD.cert_pem
