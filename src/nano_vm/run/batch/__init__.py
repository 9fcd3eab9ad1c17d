"""A program over many inputs."""
