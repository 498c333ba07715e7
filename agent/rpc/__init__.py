"""The mutually authenticated connection between nodes, on one TLS 1.3 listener.

What may enter: frames, streams with credit, who the peer is by its certificate, and the messages that nodes exchange.
Nothing here decides what a message leads to.
"""
