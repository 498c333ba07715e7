"""What connects tasks across hosts: balancers of published ports; overlays and names follow.

What may enter: the table of endpoints that the manager sends, and sockets of this host.
"""
