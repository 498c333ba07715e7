"""Options that several commands of a node's part in the swarm share."""

from __future__ import annotations

import click

DEFAULT_LISTEN = "0.0.0.0:2377"

AVAILABILITY = click.option(
    "--availability", type=click.Choice(["active", "pause", "drain"]), default="active", help="Of this node."
)
LISTEN = click.option("--listen-addr", default=DEFAULT_LISTEN, show_default=True, help="Where this node listens.")
ADVERTISE = click.option("--advertise-addr", default="", help="Address or interface that other nodes reach it at.")
DATA_PATH = click.option("--data-path-addr", default="", help="Address or interface for the containers' traffic.")
