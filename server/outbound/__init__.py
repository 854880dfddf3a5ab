"""Requests that the server itself makes, and the addresses it may reach."""
