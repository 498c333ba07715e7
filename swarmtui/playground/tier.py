"""Which kind of instances this machine allows, and why."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from enum import StrEnum

from swarmtui.playground import cgroups


class Tier(StrEnum):
    """Kinds of instances, the richest first."""

    ENGINE = "engine"
    """Namespaces of every kind and a container engine of its own in each."""

    NAMESPACES = "namespaces"
    """Namespaces of every kind, real addresses; tasks are processes of the images that ship with the product."""

    LOOPBACK = "loopback"
    """No privileges at all: addresses 127.77.N.1; tasks are processes of the images that ship with the product."""

    @property
    def isolated(self) -> bool:
        """Whether instances have namespaces and a network of their own."""
        return self is not Tier.LOOPBACK


AUTO = "auto"
"""Asks for the richest tier that the machine allows."""

ENGINE_PROGRAMS = ("dockerd", "containerd", "runc")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this machine allows. Each obstacle is empty where there is none, else words that follow a colon."""

    namespaces_obstacle: str
    groups_obstacle: str
    engine_obstacle: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The tier of a session, with the reason for people."""

    tier: Tier
    reason: str
    grouped: bool
    """Whether instances have control groups of their own, and so can be frozen and measured."""


class TierUnavailable(Exception):
    """The tier that was asked for cannot be had here; the text says why."""


def choose(wanted: str, can: Capabilities) -> Choice:
    """The tier for AUTO, or the one that is named if it can be had. Raises TierUnavailable."""
    grouped = not can.groups_obstacle
    engine_obstacle = can.namespaces_obstacle or can.groups_obstacle or can.engine_obstacle
    choices = {
        Tier.ENGINE: (engine_obstacle, "root, and an engine is installed"),
        Tier.NAMESPACES: (
            can.namespaces_obstacle,
            f"root, but no engine of its own in each instance: {engine_obstacle}",
        ),
        Tier.LOOPBACK: ("", f"no namespaces: {can.namespaces_obstacle}"),
    }
    if wanted != AUTO:
        tier = Tier(wanted)
        obstacle, _reason = choices[tier]
        if obstacle:
            raise TierUnavailable(f"tier {tier} cannot be had on this machine: {obstacle}")
        return Choice(tier, "asked for", grouped)
    for tier, (obstacle, reason) in choices.items():
        if not obstacle:
            return Choice(tier, reason, grouped)
    raise AssertionError("the loopback tier needs nothing")


def probe() -> Capabilities:
    """Ask this machine; takes some milliseconds."""
    return Capabilities(
        namespaces_obstacle=_namespaces_obstacle(),
        groups_obstacle=cgroups.obstacle(cgroups.mounted()) or "",
        engine_obstacle=_engine_obstacle(),
    )


def _namespaces_obstacle() -> str:
    if os.geteuid() != 0:
        return "not root"
    missing = [program for program in ("ip", "unshare") if shutil.which(program) is None]
    if missing:
        return f"{missing[0]} is not installed (Debian: {'iproute2' if missing[0] == 'ip' else 'util-linux'})"
    # Root in a container is often root in name only: a trial tells, the rest is guessing.
    trial = (
        "mount -t tmpfs tmpfs /run && ip link add trial type veth peer name laird && ip link add bridge0 type bridge"
    )
    attempt = subprocess.run(
        ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "sh", "-c", trial],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if attempt.returncode == 0:
        return ""
    return (attempt.stderr.strip().splitlines() or ["the trial failed"])[-1]


def _engine_obstacle() -> str:
    missing = [program for program in ENGINE_PROGRAMS if shutil.which(program, path=search_path()) is None]
    return f"no engine installed: {missing[0]} is missing (Debian: docker.io)" if missing else ""


def search_path() -> str:
    """PATH with the folders of system programs, which a person's shell often lacks."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
