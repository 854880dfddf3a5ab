"""The upscalers: array in, array out. Knows nothing of sockets, accounts or JSON."""
