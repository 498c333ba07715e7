"""Errors of the API: a text for people and the HTTP status that goes with it.

Docker's swarm part answers with gRPC's texts (`rpc error: code = NotFound desc = ...`) where the request reached the
cluster and with plain texts where the front door refused it; `grpc` and `text` keep both apart. The statuses are those
of moby's httpstatus package and of the recorded traffic.
"""

from __future__ import annotations

from typing import ClassVar


class ApiError(Exception):
    """An error that a client of the API is told: `str(error)` is the message of the JSON answer."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "Unknown"

    @classmethod
    def grpc(cls, description: str) -> ApiError:
        """The error with the text that a gRPC client of SwarmKit would print."""
        return cls(f"rpc error: code = {cls.code} desc = {description}")


class InvalidArgument(ApiError):
    """The request is wrong in itself."""

    status = 400
    code = "InvalidArgument"


class FailedPrecondition(ApiError):
    """The request is right but the cluster is not in a state for it."""

    status = 400
    code = "FailedPrecondition"


class Unauthenticated(ApiError):
    """Who asks is not known."""

    status = 401
    code = "Unauthenticated"


class PermissionDenied(ApiError):
    """Who asks is known and may not."""

    status = 403
    code = "PermissionDenied"


class NotFound(ApiError):
    """There is no such object."""

    status = 404
    code = "NotFound"


class AlreadyExists(ApiError):
    """The name is taken."""

    status = 409
    code = "AlreadyExists"


class Unknown(ApiError):
    """Docker's status for errors it did not classify: a bad constraint, a bad token, a stale version."""

    status = 500
    code = "Unknown"


class Unimplemented(ApiError):
    """This agent cannot do it; the text says why."""

    status = 501
    code = "Unimplemented"


class Unavailable(ApiError):
    """Not now or not on this node: no swarm, no quorum, a leader that was lost."""

    status = 503
    code = "Unavailable"


class OutOfSequence(Unknown):
    """The object changed since the client read it (its `Version.Index` is stale)."""

    def __init__(self) -> None:
        super().__init__("rpc error: code = Unknown desc = update out of sequence")
