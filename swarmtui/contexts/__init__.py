"""Where clusters are found: `-H`, `DOCKER_HOST`, Docker contexts, and the sockets that are usual on a host."""
