"""The way of an outcome to its client: over a socket, by webhook, or kept until asked for."""
