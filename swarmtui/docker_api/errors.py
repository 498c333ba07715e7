"""What can go wrong between the console and an engine; every text is one that a person can act on."""

from __future__ import annotations

from typing import ClassVar


class EngineError(Exception):
    """Base of everything that this room raises; `str(error)` is for people."""


class ConnectionFailed(EngineError):
    """The engine cannot be reached, or the connection was lost."""


class NotReached(ConnectionFailed):
    """No connection came about: nothing was sent, so that the same request may be sent to another manager."""


class TimedOut(ConnectionFailed):
    """The engine is there but did not answer in time."""


class MalformedAnswer(EngineError):
    """The engine (or something between) sent what the API does not allow."""


class BadAddress(EngineError):
    """The address of the engine is wrong in itself."""


class ApiError(EngineError):
    """The engine refused: `message` is its own text, `status` the HTTP status."""

    default_status: ClassVar[int] = 500

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = self.default_status if status is None else status


class InvalidRequest(ApiError):
    """400: the request is wrong, or the cluster is not in a state for it."""

    default_status = 400


class NotFound(ApiError):
    """404: no such object, or no such route."""

    default_status = 404


class Conflict(ApiError):
    """409: the name is taken."""

    default_status = 409


class Gone(ApiError):
    """410: the index to resume a watch from is no longer held."""

    default_status = 410


class NotImplementedHere(ApiError):
    """501: this engine cannot do it."""

    default_status = 501


class NotAManager(ApiError):
    """503 of a node that is in no swarm, or that is a worker: another node or `swarm init` is needed."""

    default_status = 503


class Unavailable(ApiError):
    """503 otherwise: no leader, no quorum, not now."""

    default_status = 503


class OutOfSequence(ApiError):
    """The object changed since it was read."""

    default_status = 500


_BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    404: NotFound,
    409: Conflict,
    410: Gone,
    501: NotImplementedHere,
    503: Unavailable,
}


def api_error(status: int, message: str) -> ApiError:
    """The error for an answer. Docker tells some cases apart by text alone (recorded traffic), so texts decide too."""
    if "update out of sequence" in message:
        return OutOfSequence(message, status)
    if status == 503 and "not a swarm manager" in message:
        return NotAManager(message, status)
    return _BY_STATUS.get(status, ApiError)(message, status)
