"""The asyncio client of the Docker Engine API, for a real Docker Engine or Swarm and for our own agents alike.

This room knows nothing of screens. `types` and `errors` import only msgspec; `client` imports aiohttp, so whoever must
start fast imports `swarmtui.docker_api.client` late.
"""
