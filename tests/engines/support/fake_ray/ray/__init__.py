"""As much of Ray as a connection needs, with actors in the same process; its one node may hang."""

import time
from concurrent.futures import ThreadPoolExecutor

from ray import exceptions

__all__ = ["exceptions", "init", "kill", "nodes", "put", "remote", "shutdown"]

_threads = ThreadPoolExecutor(8)
_addresses = []


def init(address, **_):
    if address == "nowhere:1":
        raise ConnectionError("there is nothing")
    _addresses.append(address)


def nodes():
    while _addresses == ["hangs:1"]:
        time.sleep(0.01)
    resources = {"CPU": 2.0, "GPU": 1.0}
    known = {"NodeID": "a" * 56, "NodeManagerHostname": "one", "Resources": resources}
    return [known | {"Alive": True}, known | {"NodeID": "b" * 56, "Alive": False}]


class _Reference:
    def __init__(self, future):
        self._future = future

    def future(self):
        return self._future


class _Method:
    def __init__(self, method):
        self._method = method

    def remote(self, *arguments):
        def work():
            try:
                return self._method(*(each.value if isinstance(each, _Put) else each for each in arguments))
            except Exception as error:
                raise exceptions.RayTaskError(error) from error

        return _Reference(_threads.submit(work))


class _Actor:
    def __init__(self, instance):
        self._instance = instance

    def __getattr__(self, name):
        return _Method(getattr(self._instance, name))


class _Class:
    def __init__(self, kind):
        self._kind = kind

    def options(self, **_):
        return self

    def remote(self, *arguments, **named):
        return _Actor(self._kind(*arguments, **named))


def remote(kind):
    return _Class(kind)


class _Put:
    def __init__(self, value):
        self.value = value


def put(value):
    return _Put(value)


def kill(_actor):
    pass


def shutdown():
    pass
