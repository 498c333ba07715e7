"""Overlays on this host: a bridge and a VXLAN port for each network, and the entries that lead to other hosts' tasks."""
