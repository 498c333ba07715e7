"""The cluster's certificate authority, node certificates, join tokens, rotation, unlock key.

What may enter: keys, certificates, secrets, and who may have which. Nothing here opens a connection.
"""
