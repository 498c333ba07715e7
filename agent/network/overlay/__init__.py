"""Overlays on this host: a bridge and a VXLAN port for each network, and the entries that lead to other hosts' tasks."""

from agent.network.overlay.interface import OverlayWanted, bridge_name, vxlan_name
from agent.network.overlay.overlays import Overlays

__all__ = ["OverlayWanted", "Overlays", "bridge_name", "vxlan_name"]
