"""What the core refuses, and what must never happen."""

from __future__ import annotations


class ProposalRefused(Exception):
    """The proposal was surely not taken; the text says why and whether to try again."""


class ChangeRefused(ProposalRefused):
    """The change of membership was surely not taken."""


class BrokenInvariant(Exception):
    """Something that Raft rules out was seen: a disk that forgot, or two groups under one name. The member must stop."""
