"""Which engine is meant, in the docker CLI's order (docker/cli cli/command/cli.go, resolveContextName):

`-H`, `--context`, `DOCKER_HOST`, `DOCKER_CONTEXT`, the current context of `~/.docker/config.json`, and then the usual
sockets: the agent's own first, because on a host that has both it is the one that knows the cluster.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swarmtui.contexts.docker_store import DockerStore
from swarmtui.docker_api.address import EngineAddress, TLSFiles, parse_address, socket_address
from swarmtui.docker_api.errors import BadAddress

AGENT_SOCKET = "/run/swarmtui/docker.sock"
ENGINE_SOCKET = "/var/run/docker.sock"
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Context:
    """One cluster that can be connected to."""

    name: str
    address: EngineAddress
    source: str
    """Where it comes from, for people: `-H`, `DOCKER_HOST`, a file."""
    description: str = ""


def resolve(
    host: str | None = None,
    context: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    exists: Callable[[str], bool] = os.path.exists,
) -> Context:
    """The context to use. BadAddress (with what to do) for an address or a context that cannot be used."""
    env = os.environ if environ is None else environ
    store = docker_store(env)
    if host and context:
        raise BadAddress("--host and --context exclude each other; give one of them")
    if host:
        return Context(DEFAULT, parse_address(host, _tls(env)), "--host")
    if context:
        return named(context, store, env, exists, "--context")
    if env.get("DOCKER_HOST"):
        return Context(DEFAULT, parse_address(env["DOCKER_HOST"], _tls(env)), "DOCKER_HOST")
    if env.get("DOCKER_CONTEXT"):
        return named(env["DOCKER_CONTEXT"], store, env, exists, "DOCKER_CONTEXT")
    current = store.current()
    if current and current != DEFAULT:
        return named(current, store, env, exists, str(store.config_file))
    return usual_socket(exists)


def named(name: str, store: DockerStore, env: Mapping[str, str], exists: Callable[[str], bool], source: str) -> Context:
    """The context of that name; `default` is what there is without one."""
    if name == DEFAULT:
        if env.get("DOCKER_HOST"):
            return Context(DEFAULT, parse_address(env["DOCKER_HOST"], _tls(env)), "DOCKER_HOST")
        return usual_socket(exists)
    stored = store.find(name)
    if stored is None:
        known = ", ".join(sorted({DEFAULT, *store.names()}))
        raise BadAddress(f"there is no context {name!r} ({source}); there are: {known}")
    return Context(name, parse_address(stored.host, stored.tls), source, stored.description)


def usual_socket(exists: Callable[[str], bool] = os.path.exists) -> Context:
    """The agent's socket where there is one, else the Docker Engine's."""
    path = AGENT_SOCKET if exists(AGENT_SOCKET) else ENGINE_SOCKET
    return Context(DEFAULT, socket_address(path), "the usual place")


def list_contexts(environ: Mapping[str, str] | None = None) -> Sequence[Context]:
    """Every context that can be connected to, `default` first; those with an address that is not understood are left out."""
    env = os.environ if environ is None else environ
    store = docker_store(env)
    found = []
    for name in (DEFAULT, *sorted(store.names())):
        try:
            found.append(named(name, store, env, os.path.exists, str(store.folder)))
        except BadAddress:
            continue
    return found


def docker_store(env: Mapping[str, str]) -> DockerStore:
    """Docker's own files: `DOCKER_CONFIG`, or `~/.docker`."""
    folder = env.get("DOCKER_CONFIG")
    return DockerStore(Path(folder) if folder else Path(env.get("HOME") or Path.home()) / ".docker")


def _tls(env: Mapping[str, str]) -> TLSFiles | None:
    """`DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH`, as the docker CLI takes them."""
    if not (env.get("DOCKER_TLS_VERIFY") or env.get("DOCKER_TLS")):
        return None
    folder = env.get("DOCKER_CERT_PATH") or env.get("DOCKER_CONFIG")
    place = Path(folder) if folder else Path(env.get("HOME") or Path.home()) / ".docker"
    return TLSFiles(
        ca=_if_there(place / "ca.pem"),
        certificate=_if_there(place / "cert.pem"),
        key=_if_there(place / "key.pem"),
        verify=bool(env.get("DOCKER_TLS_VERIFY")),
    )


def _if_there(path: Path) -> Path | None:
    return path if path.exists() else None
