"""Agreement on one order of changes, and its durable log.

What may enter: entries as opaque bytes, their order, their durability. Nothing here knows what an entry means; the room
declares the protocols `Sealer` (encryption at rest) and `StateMachine` (who applies) that it needs from rooms above.
"""
