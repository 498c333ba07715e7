"""A host's name servers in a process of their own, in whatever network namespace it is started.

Arguments: the table's name, then one `NETWORK=BRIDGE_ADDRESS/LENGTH` a network. Each network has a service `web` whose
virtual address is the subnet's second; the tasks NETWORK5 to NETWORK9 have the addresses that end so. Prints "ready" and
the servers' ports; at the end of its input it leaves. A line "again" makes the redirects anew, "die" ends it without a word.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import sys

from agent.network.dns.names import Names, NetworkNames
from agent.network.dns.redirect import Redirects
from agent.network.dns.server import NameServer
from agent.rpc.messages import OverlayDescription, OverlayEndpoint, OverlayService, OverlaySubnet


def names_of(network: str, bridge: str) -> NetworkNames:
    subnet = ipaddress.ip_interface(bridge).network
    description = OverlayDescription(network, 4097, [OverlaySubnet(str(subnet), bridge.partition("/")[0])])
    tasks = [
        OverlayEndpoint(f"{network}-{n}", str(subnet[n]), "node1", "h", "s", f"{network}{n}", [], True)
        for n in range(5, 10)
    ]
    return NetworkNames.build(network, description, [OverlayService("s", "web", str(subnet[2]))], tasks)


async def main() -> None:
    table, *networks = sys.argv[1:]
    names = Names()
    for network, _, bridge in (one.partition("=") for one in networks):
        names = names.with_network(names_of(network, bridge))
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with contextlib.AsyncExitStack() as stack:
        ports = {}
        for bridge in (one.partition("=")[2] for one in networks):
            address = bridge.partition("/")[0]
            server = await stack.enter_async_context(NameServer(address, 0, names, list))
            ports[address] = server.port
        redirects = await stack.enter_async_context(Redirects(table=table))
        await redirects.apply(ports)
        print("ready", *ports.values(), flush=True)
        async for line in lines:
            if line == b"die\n":
                os._exit(9)
            await redirects.apply(ports, again=line == b"again\n")
            print("done", flush=True)


asyncio.run(main())
