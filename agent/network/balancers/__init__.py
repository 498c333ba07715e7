"""The adapters behind `Balancer`: today the userspace relay; IPVS and nftables stand beside it.

What may enter: the desired set of virtual services. An adapter changes this host and nothing else.
"""
