"""Work for the toolkit's workers, as a call yet to be made.

A worker that is replaced before it began never awaits the coroutine it was given; a call that was not made leaves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, ParamSpec

P = ParamSpec("P")


def deferred(work: Callable[P, Coroutine[Any, Any, None]], *arguments: P.args, **named: P.kwargs) -> Any:
    """What `run_worker` takes; its own type for that cannot be met by a call with arguments."""
    return partial(work, *arguments, **named)
