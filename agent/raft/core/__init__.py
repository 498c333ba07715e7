"""Consensus as a pure machine: messages, ticks and proposals go in, what must be done comes out.

What may enter: the rules of Raft (Ongaro's thesis, 2014) and nothing that waits, reads a clock, touches a file or a
socket. Randomness is passed in. `node.RaftCore` is the face; `ready.Ready` says what a driver owes the core.
"""
