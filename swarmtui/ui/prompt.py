"""What is typed after `:`, understood. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from swarmtui.ui.actions import ACTIONS, Action, Scope, find_command


class Command(NamedTuple):
    """An action with its arguments."""

    action: Action
    arguments: list[str]


class Misunderstood(ValueError):
    """What was typed is no command; the text says why, and what there is."""


def parse(text: str, scopes: Iterable[Scope]) -> Command:
    """The command in `text`; names that several scopes share mean the action of one of `scopes`."""
    try:
        words = shlex.split(text.strip().removeprefix(":"))
    except ValueError:
        # An apostrophe in a filter is no quotation mark.
        words = text.strip().removeprefix(":").split()
    if not words:
        raise Misunderstood("type a command; ? lists them")
    name, *arguments = words
    action = find_command(name.lower(), scopes)
    if action is None:
        near = [names[0] for names in (a.names for a in ACTIONS) if names and names[0].startswith(name[:1].lower())]
        hint = f"; did you mean {', '.join(sorted(set(near))[:4])}?" if near else ""
        raise Misunderstood(f"there is no command {name!r}{hint}")
    if arguments and not action.arguments:
        raise Misunderstood(f"{name} takes no arguments")
    return Command(action, arguments)


def suggestions(text: str, scopes: Iterable[Scope], names: Sequence[str] = ()) -> list[str]:
    """Lines that `text` may become: commands while the first word is typed, then names of objects."""
    head, blank, rest = text.partition(" ")
    if not blank:
        wanted = set(scopes)
        ranked = sorted(
            (a for a in ACTIONS if a.names and any(name.startswith(head.lower()) for name in a.names)),
            key=lambda a: (a.scope not in wanted, a.names[0]),
        )
        return list(dict.fromkeys(action.names[0] for action in ranked))
    if find_command(head, scopes) is None:
        return []
    before, _, last = rest.rpartition(" ")
    sign = "@" if last.startswith("@") else ""
    stem = " ".join(filter(None, (head, before)))
    return [f"{stem} {sign}{name}" for name in names if name.startswith(last.removeprefix("@")) and name != last]


class TaskQuery(NamedTuple):
    """The arguments of `:tasks`: `web @node2 failed`."""

    service: str = ""
    node: str = ""
    filter: str = ""


def task_query(arguments: Sequence[str], services: Iterable[str]) -> TaskQuery:
    """`@` marks a node, the first other word a service when there is one of that name, the rest is a filter."""
    known = set(services)
    service = node = ""
    rest: list[str] = []
    for word in arguments:
        if word.startswith("@") and len(word) > 1:
            node = word[1:]
        elif not service and not rest and word in known:
            service = word
        else:
            rest.append(word)
    return TaskQuery(service, node, " ".join(rest))
