"""Names on overlay networks: a DNS server for each network's bridge, in the agent.

Tasks ask it through the engine's resolver or by their resolv.conf; the address that asks decides which networks' names it
sees. What may enter: the pictures of networks that the manager sends, and sockets of this host.
"""
