"""Names on this host's networks, answered on each network's gateway address: the servers and the way to them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from agent.network.dns.names import Names, NetworkNames
from agent.network.dns.redirect import RedirectFailed, Redirects
from agent.network.dns.resolvers import HostResolvers, Resolver
from agent.network.dns.server import NameServer
from agent.network.tables import NetworkPicture

logger = logging.getLogger(__name__)


class ServedNames:
    """A server a gateway, all of which answer from one picture of names; who asks decides what it sees."""

    def __init__(
        self, redirects: Redirects | None = None, resolvers: Callable[[], Sequence[Resolver]] | None = None
    ) -> None:
        self._redirects = redirects or Redirects()
        self._resolvers = resolvers or HostResolvers()
        self._names = Names()
        self._servers: dict[str, NameServer] = {}
        self._gateways: dict[str, frozenset[str]] = {}
        self.problem = ""
        """Why names are not answered as they should be; empty when they are."""

    def tell(self, network_id: str, picture: NetworkPicture | None) -> None:
        """The network is now so, or gone. Counts from the next query on."""
        if picture is None:
            self._names = self._names.without_network(network_id)
            self._gateways.pop(network_id, None)
        else:
            self._gateways[network_id] = frozenset(one.gateway for one in picture.description.subnets if one.gateway)
            self._names = self._names.with_network(
                NetworkNames.build(
                    network_id, picture.description, picture.services.values(), picture.endpoints.values()
                )
            )
        for server in self._servers.values():
            server.names = self._names

    async def serve(self, *, again: bool = False) -> None:
        """Answer on just the gateways of the networks that were told. `again`: other programs may have changed the rules."""
        wanted = frozenset[str]().union(*self._gateways.values())
        problem = ""
        for gateway in self._servers.keys() - wanted:
            await self._servers.pop(gateway).close()
        for gateway in sorted(wanted - self._servers.keys()):
            server = NameServer(gateway, 0, self._names, self._resolvers)
            try:
                await server.__aenter__()
            except OSError as error:
                problem = f"names cannot be answered on {gateway}: {error}"
                continue
            self._servers[gateway] = server
        try:
            await self._redirects.apply(self.ports, again=again)
        except RedirectFailed as error:
            problem = str(error)
        if problem and problem != self.problem:
            logger.error("%s", problem)
        self.problem = problem

    @property
    def ports(self) -> Mapping[str, int]:
        """The port of each gateway's server."""
        return {gateway: server.port for gateway, server in self._servers.items()}

    async def close(self) -> None:
        """Stop answering. Idempotent."""
        servers, self._servers = self._servers, {}
        for server in servers.values():
            await server.close()
        try:
            await self._redirects.close()
        except RedirectFailed as error:
            logger.warning("%s", error)
