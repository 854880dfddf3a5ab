"""A cluster without Ray: hosts in this process, whose nodes come and go as a test says."""

import pickle
import threading

from engines.errors import DeviceLostError
from engines.ray.connection import Node
from engines.ray.host import DeviceHost


class FakeCluster:
    """As `engines.ray.connection.Connection`.

    Attributes:
        devices: what runs on each node, by its name; the first place of a node has it.
        hosts: that were started, by name.
        error: what `nodes` raises, if anything.
        version: of the engines on the nodes, if another.
    """

    def __init__(self, directory, **devices):
        self.directory, self.devices = directory, devices
        self.hosts, self.error, self.version, self.closed = {}, None, None, 0

    def __call__(self, _address):
        """Connect."""
        return self

    def nodes(self):
        if self.error is not None:
            raise self.error
        return [Node(name, name, 1, 0) for name in self.devices]

    def host(self, name, node, wanted):
        if name not in self.hosts or self.hosts[name].gone:
            self.hosts[name] = FakeLink(self, node, wanted, self.version)
        return self.hosts[name]

    def lose(self, node):
        """The node is gone, with all that it was at."""
        del self.devices[node]
        for link in self.hosts.values():
            if link.node == node:
                link.end()

    def close(self):
        self.closed += 1


class FakeLink:
    """As `RayLink`: what goes there and comes back is pickled."""

    def __init__(self, cluster, node, wanted, version):
        self.cluster, self.node, self.gone = cluster, node.name, False
        self.added, self._end = [], threading.Event()
        device = cluster.devices[node.name]
        directory = cluster.directory / node.name
        self.host = DeviceHost(
            wanted, version=version, directory=directory, leave=self.end, find=lambda *_: (device,)
        )

    def call(self, method, *arguments):
        return self.ask(method, *arguments).result()

    def ask(self, method, *arguments):
        if method == "add":
            self.added.append(arguments[1])
        return FakeAnswer(self, method, pickle.loads(pickle.dumps(arguments)))  # noqa: S301

    def put(self, piece):
        return piece

    def kill(self):
        self.end()

    def end(self):
        self.gone = True
        self._end.set()


class FakeAnswer:
    def __init__(self, link, method, arguments):
        self.link, self.value, self.error = link, None, None
        self.done = threading.Event()
        threading.Thread(target=self._work, args=[method, arguments], daemon=True).start()

    def _work(self, method, arguments):
        try:
            self.value = getattr(self.link.host, method)(*arguments)
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            self.error = error
        self.done.set()

    def is_there(self):
        return self.done.wait(10) or self.link.gone

    def result(self):
        while not self.done.wait(0.002):
            if self.link.gone:
                break
        if self.link.gone:
            raise DeviceLostError(f"{self.link.node} died")
        if self.error is not None:
            raise self.error
        return self.value
