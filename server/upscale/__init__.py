"""The way of an accepted task to its outcome."""
