"""A host that gives back what it gets."""

import os

from engines.errors import ModelError


class EchoHost:
    def __init__(self, wanted, *, greeting):
        self.said = (wanted, greeting)

    def describe(self):
        return self.said

    def echo(self, *arguments):
        return arguments

    def fail(self, kind):
        raise ModelError("it is broken") if kind == "model" else OSError(28, "No space left on device")

    def die(self):
        os._exit(1)
