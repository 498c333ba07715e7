"""Names for services that a client did not name: an adjective and somebody who helped to make machines agree."""

from __future__ import annotations

import random
from collections.abc import Callable

NameSource = Callable[[], str]
"""Makes a name. Injected, so that a test is exact."""

_ADJECTIVES = (
    "able agile amber bold brave brisk calm candid clear clever cosmic crisp daring deft eager earnest fair famous "
    "fluent fond frank free gentle glad golden grand happy hardy honest humble jolly keen kind lively lucid lucky "
    "merry mighty modest neat nimble noble patient plucky polite proud quick quiet rapid ready robust serene sharp "
    "silent sincere smart snug solid steady sunny swift tidy tender upbeat valiant vivid warm wise witty zealous"
)
_PEOPLE = (
    "backus birman boehm cerf chandra cheriton codd dijkstra engelbart floyd fischer gray hamilton hoare holberton "
    "hopper jennings johnson kahn karp kay kernighan kleinrock knuth lamport lampson liskov lovelace lynch mccarthy "
    "metcalfe milner minsky needham neumann oki ongaro ousterhout paterson perlman pnueli postel rabin reed ritchie "
    "saltzer schneider shannon sammet stallman sutherland tanenbaum tarjan thompson toueg turing wilkes wirth zuse"
)


def random_name(rng: random.Random) -> str:
    """A name as `brave_lamport`; whether it is free is for the cluster to say."""
    return f"{rng.choice(_ADJECTIVES.split())}_{rng.choice(_PEOPLE.split())}"
