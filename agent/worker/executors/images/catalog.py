"""Which images there are, and which one a name means. Pure data.

| image | runs | port | settings |
|---|---|---|---|
| `swarmtui/whoami` | which replica answered: text at `/`, JSON at `/api`, `/health`; `?wait=2s` delays | 8000 | PORT |
| `swarmtui/web:1.0`, `:1.1` | a page showing its version; `/version`, `/health` | 80 | PORT |
| `swarmtui/logger` | numbered lines at a rate, several levels, both streams | | RATE, COUNT, SIZE, STREAM |
| `swarmtui/fail` | ends with EXIT_CODE after AFTER seconds | | EXIT_CODE, AFTER |
| `alpine`, `busybox` | a command of the host (`sleep 1000`, `sh -c ...`, `ping` where the host has it) | | |
| `nginx`, `httpd` | one static page | 80 | PORT |

The last four stand in for the images that books use. Any tag of theirs is taken, as books pin all sorts; of ours only the
tags that exist.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

CREATED = 1795219200
"""When the images were made, in seconds since the epoch: they change with the product, not with the clock."""
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_REFERENCE = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_HUB = ("docker.io/", "index.docker.io/", "registry-1.docker.io/")


class UnknownImage(Exception):
    """No image of this name ships with the product; the text is Docker's, and lists what there is."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image: `entrypoint` and `command` as in Docker, `programs` maps a first word of the command to a program of ours
    and its first arguments; any other first word is a program of the host."""

    name: str
    tag: str
    about: str
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = (_PATH,)
    ports: tuple[str, ...] = ()
    programs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    stand_in: bool = False

    @property
    def reference(self) -> str:
        """Name and tag."""
        return f"{self.name}:{self.tag}"

    @property
    def labels(self) -> dict[str, str]:
        """Labels in the OCI's names, and ours for a stand-in."""
        return {
            "org.opencontainers.image.title": self.name,
            "org.opencontainers.image.version": self.tag,
            "org.opencontainers.image.description": self.about,
            "swarmtui.image": "stand-in" if self.stand_in else "built-in",
        }

    @property
    def id(self) -> str:
        """`sha256:` and the digest of what defines the image."""
        content = [
            self.name,
            self.tag,
            self.entrypoint,
            self.command,
            self.env,
            self.ports,
            sorted(self.programs.items()),
        ]
        return "sha256:" + hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def notice(self) -> str:
        """What a person is told on stderr when a stand-in starts, else empty."""
        if not self.stand_in:
            return ""
        return (
            f"{self.name} is a stand-in that ships with swarmtui ({self.about}); the real image needs a Docker Engine"
        )


def _ours(
    name: str, tag: str, about: str, *words: str, env: tuple[str, ...] = (), ports: tuple[str, ...] = ()
) -> Image:
    program = f"/{words[0]}"
    return Image(
        name=f"swarmtui/{name}",
        tag=tag,
        about=about,
        entrypoint=(program,),
        env=(_PATH, *env),
        ports=ports,
        programs={program: words},
    )


IMAGES: tuple[Image, ...] = (
    _ours("whoami", "latest", "says which replica answered", "whoami", ports=("8000/tcp",)),
    _ours("web", "1.0", "a page that shows its version", "web", env=("VERSION=1.0",), ports=("80/tcp",)),
    _ours("web", "1.1", "a page that shows its version", "web", env=("VERSION=1.1",), ports=("80/tcp",)),
    _ours("logger", "latest", "numbered lines at a steady rate", "logger"),
    _ours("fail", "latest", "fails as told", "fail"),
    Image("alpine", "latest", "commands of this host", command=("/bin/sh",), stand_in=True),
    Image("busybox", "latest", "commands of this host", command=("sh",), stand_in=True),
    Image(
        "nginx",
        "latest",
        "one static page",
        command=("nginx", "-g", "daemon off;"),
        ports=("80/tcp",),
        programs={"nginx": ("page", "nginx")},
        stand_in=True,
    ),
    Image(
        "httpd",
        "latest",
        "one static page",
        command=("httpd-foreground",),
        ports=("80/tcp",),
        programs={"httpd-foreground": ("page", "httpd"), "httpd": ("page", "httpd")},
        stand_in=True,
    ),
)
"""All images, the newest tag of a name last."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An image name taken apart; the digest is left out."""

    name: str
    tag: str


def parse_reference(text: str) -> Reference:
    """`docker.io/library/nginx:1.25@sha256:...` as nginx and 1.25. UnknownImage for a text that names no image."""
    name, _, _digest = text.partition("@")
    head, colon, tail = name.rpartition(":")
    tag = ""
    if colon and "/" not in tail:
        name, tag = head, tail
        if not _TAG.match(tag):
            raise UnknownImage(f"invalid reference format: {text!r}")
    for hub in _HUB:
        name = name.removeprefix(hub)
    name = name.removeprefix("library/")
    bare = re.sub(r"\A[A-Za-z0-9.-]+:\d+/", "", name)
    if not _REFERENCE.match(bare):
        raise UnknownImage(f"invalid reference format: {text!r}")
    return Reference(name, tag)


def find_image(text: str) -> Image:
    """The image that `text` means. UnknownImage lists what there is."""
    reference = parse_reference(text)
    named = [image for image in IMAGES if image.name == reference.name]
    for image in named:
        if image.stand_in or image.tag == reference.tag:
            return image
    if named and reference.tag in ("", "latest"):
        return named[-1]
    shown = f"{reference.name}:{reference.tag or 'latest'}"
    raise UnknownImage(f"No such image: {shown}; this node runs {offered()}, and no others without a Docker Engine")


def find_by_id(text: str) -> Image | None:
    """The image with this id, whole or the beginning of its digest (12 characters at least, to tell it from a name)."""
    digest = text.removeprefix("sha256:")
    if len(digest) < 12 or not re.fullmatch(r"[0-9a-f]+", digest):
        return None
    found = [image for image in IMAGES if image.id.removeprefix("sha256:").startswith(digest)]
    return found[0] if len(found) == 1 else None


def offered() -> str:
    """All references, for people: `swarmtui/whoami, swarmtui/web:1.0, ...`."""
    return ", ".join(image.reference.removesuffix(":latest") for image in IMAGES)


def program_of(image: Image, argv: list[str]) -> list[str] | None:
    """The program of ours and its arguments that `argv` means in this image, None for a program of the host."""
    words = image.programs.get(argv[0]) if argv else None
    if words is None:
        return None
    # What is left of a stand-in's command line (`-g "daemon off;"`) means something to the real program only.
    return [*words, *(() if image.stand_in else argv[1:])]
