"""Ray clusters whose nodes are processes of this machine."""

import os
from contextlib import contextmanager

import pytest

STORE = 100 << 20
"""Bytes of each node's object store."""


class Nodes:
    """A cluster; `address` is what it is joined at."""

    def __init__(self):
        from ray.cluster_utils import Cluster  # noqa: PLC0415 - Ray may not be installed

        self._cluster = Cluster()
        self.add(cpus=0)  # the head, which computes nothing
        self.address = self._cluster.address

    def add(self, cpus=1, **environment):
        """Add a node; the processes on it have these variables, too."""
        more = {"env_vars": environment} if environment else {}
        with changed(environment):
            return self._cluster.add_node(
                num_cpus=cpus, include_dashboard=False, object_store_memory=STORE, **more
            )

    def kill(self, node):
        """End a node as a power cut would."""
        self._cluster.remove_node(node, allow_graceful=False)

    def lose_head(self):
        """End what knows of all nodes."""
        self._cluster.head_node.kill_gcs_server()

    def shutdown(self):
        self._cluster.shutdown()


@contextmanager
def changed(environment):
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def ray_nodes(cache):
    """A cluster without any node but its head.

    Args:
        cache: where its nodes keep the files of models.
    """
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]', where it has a wheel")
    with changed({"RAY_USAGE_STATS_ENABLED": "0", "XDG_CACHE_HOME": str(cache)}):
        nodes = Nodes()
        try:
            yield nodes
        finally:
            nodes.shutdown()
