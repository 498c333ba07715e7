"""The node's certificate, renewed while the node runs: before it expires, and when the cluster wants another one.

A certificate is renewed at a random point between 50 and 80 per cent of its life (SwarmKit's figures, ca/renewer.go), so
that nodes that joined together do not renew together; and as soon as a manager says that the node has another role, or that
another root signs now. The new identity is on the disk before anybody uses it; key, certificate and roots are one file,
replaced whole, so whatever is killed when, the file holds an identity that works.
"""

from __future__ import annotations

import asyncio
import logging
import random as randomness
from collections.abc import Awaitable, Callable

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from agent.api_types.errors import ApiError
from agent.api_types.times import SECOND, Clock, format_time, now_ns
from agent.pki.certificates import BACKDATE
from agent.pki.identity import NodeIdentity, NodeKey
from agent.pki.sealing import Locked
from agent.rpc.errors import RpcError
from agent.rpc.messages import NodeUpdate

log = logging.getLogger(__name__)

EARLIEST, LATEST = 0.5, 0.8
"""Between these shares of its life a certificate is renewed."""

LONGEST_REST = 3600.0
"""Seconds between two looks at the clock: a host that slept, or whose clock was set, must not miss the moment."""

ANSWER_TIME = 30.0
"""Seconds until an attempt to renew is given up."""

FIRST_RETRY = 1.0
LAST_RETRY, LAST_RETRY_WANTED = 300.0, 30.0
"""Seconds between attempts at most: while the old certificate serves well, and while the cluster waits for another one."""

SHARE_OF_REST = 1 / 8
"""No pause is longer than this share of the time that the certificate has left."""

SPREAD = 3.0
"""Seconds over which the nodes of a cluster renew when another root signs: all of them are told at once."""

_ANOTHER_TIME = (RpcError, ApiError, OSError, ValueError, Locked)
"""What an attempt may fail with that another attempt may not: nobody there, not now, a full disk, an answer that does not
fit, a key that cannot be kept because the manager is locked."""

Renew = Callable[[NodeKey], Awaitable[NodeIdentity]]
"""Asks the leader to certify a new key. Raises RpcError, ApiError, or ValueError when the answer does not fit the key."""


class CertificateKeeper:
    """`run()` for as long as the node is part of a cluster; `update` with every NodeUpdate.

    `save` writes an identity (it blocks, and is called in a thread). `on_identity` is told of every identity that is to be
    used from now on; `on_role` after it, when the role is another one. Both are called on the loop and return at once.
    """

    def __init__(
        self,
        identity: NodeIdentity,
        renew: Renew,
        save: Callable[[NodeIdentity], None],
        *,
        on_identity: Callable[[NodeIdentity], None],
        on_role: Callable[[NodeIdentity], None] = lambda identity: None,
        clock: Clock = now_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: randomness.Random | None = None,
    ) -> None:
        self.identity = identity
        """The one in use."""
        self._ask = renew
        self._save = save
        self._on_identity = on_identity
        self._on_role = on_role
        self._clock = clock
        self._sleep = sleep
        self._random = random or randomness.Random()
        self._wanted: NodeUpdate | None = None
        self._spread: str | None = None
        """The issuer whose certificates this node has already waited its turn for."""
        self._news = asyncio.Event()
        self.renewal = self._plan()
        """When the certificate is renewed if nobody wants another one before, in nanoseconds since the epoch."""

    def update(self, update: NodeUpdate) -> None:
        """What a manager says that the node is to have."""
        before, self._wanted = self._wanted, update
        if before is None or (before.role, before.issuer, before.roots) != (update.role, update.issuer, update.roots):
            self._news.set()

    async def run(self) -> None:
        """Renew whenever it is due, until cancelled."""
        failures = 0
        while True:
            self._news.clear()
            try:
                await self._trust()
                reason = self._reason()
                if reason is None:
                    failures = 0
                    await self._rest(min(LONGEST_REST, max(1.0, (self.renewal - self._clock()) / SECOND)))
                    continue
                if await self._takes_turn():
                    continue
                log.info("renewing the node's certificate: %s", reason)
                await self._renew()
                reason = self._reason()
            except _ANOTHER_TIME as error:
                log.warning("the node's certificate is not renewed yet: %s", str(error) or "no answer in time")
                reason = str(error)
            if reason is None:
                failures = 0
                continue
            failures += 1
            if await self._rest(self._pause(failures)):
                failures = 0

    # -- what is due

    def _plan(self) -> int:
        """A moment in the second half of the certificate's life, which begins when it was signed."""
        identity = self.identity
        signed = min(identity.not_before + BACKDATE, identity.not_after)
        return signed + int((identity.not_after - signed) * self._random.uniform(EARLIEST, LATEST))

    def _reason(self) -> str | None:
        """Why the certificate is to be renewed now; None while it is not."""
        identity, wanted = self.identity, self._wanted
        if wanted is not None and wanted.role is not identity.role:
            return f"the node is to be a {wanted.role} and not a {identity.role}"
        if wanted is not None and wanted.issuer and wanted.issuer != identity.issuer:
            return f"another root signs now, {wanted.issuer[:16]}"
        if wanted is not None and _roots(wanted.roots) - _roots(identity.root_pem):
            return "its roots are not those that the cluster trusts"
        now = self._clock()
        return f"it expires at {format_time(identity.not_after)}" if now >= self.renewal else None

    def _pause(self, failures: int) -> float:
        """Seconds until the next attempt."""
        longest = LAST_RETRY if self._reason_is_age() else LAST_RETRY_WANTED
        left = (self.identity.not_after - self._clock()) / SECOND * SHARE_OF_REST
        if left > 0:
            longest = min(longest, max(FIRST_RETRY, left))
        return self._random.uniform(0.5, 1.0) * min(longest, FIRST_RETRY * 2.0 ** min(failures - 1, 16))

    def _reason_is_age(self) -> bool:
        wanted = self._wanted
        return wanted is None or (wanted.role, wanted.issuer) == (self.identity.role, self.identity.issuer)

    async def _takes_turn(self) -> bool:
        """Wait a random while when a whole cluster is told to renew; True when there is news to look at first."""
        wanted = self._wanted
        if wanted is None or wanted.role is not self.identity.role or wanted.issuer in ("", self.identity.issuer):
            return False
        if self._spread == wanted.issuer:
            return False
        self._spread = wanted.issuer
        return await self._rest(self._random.uniform(0, SPREAD))

    async def _rest(self, seconds: float) -> bool:
        """Wait so long; True when there was news before."""
        if seconds <= 0:
            return False
        resting = asyncio.ensure_future(self._sleep(seconds))
        news = asyncio.ensure_future(self._news.wait())
        try:
            await asyncio.wait({resting, news}, return_when=asyncio.FIRST_COMPLETED)
            return news.done()
        finally:
            resting.cancel()
            news.cancel()
            await asyncio.wait({resting, news})

    # -- doing it

    async def _trust(self) -> None:
        """Trust the roots that the cluster trusts, at once: others may show certificates of a new one any moment.

        A certificate that none of them leads to is renewed instead, and comes with its roots.
        """
        wanted = self._wanted
        if wanted is None or not wanted.roots or _roots(wanted.roots) == _roots(self.identity.root_pem):
            return
        try:
            identity = self.identity.with_roots(wanted.roots)
        except ValueError:
            return
        await self._adopt(identity)

    async def _renew(self) -> None:
        async with asyncio.timeout(ANSWER_TIME):
            identity = await self._ask(NodeKey.create())
        ours = self.identity
        if (identity.node_id, identity.cluster_id) != (ours.node_id, ours.cluster_id):
            raise ValueError(f"the certificate that the leader gave is {identity!r}, and this node is {ours!r}")
        if identity.not_after <= self._clock():
            raise ValueError(f"the certificate that the leader gave expired at {format_time(identity.not_after)}")
        await self._adopt(identity)

    async def _adopt(self, identity: NodeIdentity) -> None:
        """Save, then use. Cancelled, it still ends with the write, so that two never run at once."""
        saving = asyncio.ensure_future(asyncio.to_thread(self._save, identity))
        try:
            await asyncio.shield(saving)
        except asyncio.CancelledError:
            await asyncio.wait({saving})
            if not saving.cancelled():
                saving.exception()
            raise
        before, self.identity = self.identity, identity
        if identity.certificate_pem != before.certificate_pem:
            self.renewal = self._plan()
        self._on_identity(identity)
        if identity.role is not before.role:
            self._on_role(identity)


def _roots(pem: bytes) -> frozenset[bytes]:
    """The certificates of a PEM text, however it is written; none when it cannot be read."""
    try:
        return frozenset(root.public_bytes(Encoding.DER) for root in x509.load_pem_x509_certificates(pem))
    except ValueError:
        return frozenset()
