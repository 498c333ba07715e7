"""The front door: HTTP on the unix socket, one module for each group of the Docker Engine API.

What may enter: requests, and their answers from the store, from other nodes or from the host's own engine.
"""
