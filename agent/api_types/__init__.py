"""Typed objects of the Docker Engine API's swarm part: specs, nodes, services, tasks, networks, secrets, configs.

What may enter: shapes, names, their JSON, and the texts of errors about them. Nothing here performs input or output,
keeps state, or knows who asks.

Every object is a frozen `msgspec.Struct`: a spec is shared by the service and by all of its tasks, so nobody may change
one in place (`msgspec.structs.replace` makes a changed copy). Attribute names are Python's, JSON names are the API's,
spelled out field by field with `omitempty` (left out when empty, as Go's tag of that name does) or `present`.
"""
