"""The node agent: everything that runs on a host. It meets the console only at the Docker Engine API."""
