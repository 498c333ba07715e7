"""Which networks are overlays (those that go across hosts), and how large their packets are."""

from __future__ import annotations

from agent.api_types.network import Network

OVERLAY = "overlay"
MTU_OPTION = "com.docker.network.driver.mtu"
ENCRYPTED_OPTION = "encrypted"

VXLAN_OVERHEAD = 50
"""Bytes that VXLAN over IPv4 takes of a host's packet; the option for the MTU names the hosts' own, as in Docker."""
ESP_OVERHEAD = 38
"""Bytes that ESP (AES-GCM, 16 bytes of check value) takes beyond that, padded to four."""
HOSTS_MTU = 1500
SMALLEST_MTU, LARGEST_MTU = 576, 65535


def is_overlay(network: Network) -> bool:
    """Whether a network goes across hosts and has tasks as members: not the ingress network, which is the hosts' own."""
    driver = network.driver_state.name
    if not driver and network.spec.driver_configuration is not None:
        driver = network.spec.driver_configuration.name
    return driver == OVERLAY and not network.spec.ingress


def options_of(network: Network) -> dict[str, str]:
    """What was asked of the driver, under what was allocated."""
    asked = {} if network.spec.driver_configuration is None else network.spec.driver_configuration.options
    return {**asked, **network.driver_state.options}


def is_encrypted(network: Network) -> bool:
    """Whether traffic between hosts is encrypted."""
    return options_of(network).get(ENCRYPTED_OPTION, "0").lower() not in ("false", "0")


def overlay_mtu(network: Network) -> int:
    """Bytes of an IP packet on the overlay."""
    hosts = options_of(network).get(MTU_OPTION, "")
    given = int(hosts) if hosts.isdigit() and len(hosts) < 6 else HOSTS_MTU
    return max(SMALLEST_MTU, min(given - VXLAN_OVERHEAD - (ESP_OVERHEAD if is_encrypted(network) else 0), LARGEST_MTU))
