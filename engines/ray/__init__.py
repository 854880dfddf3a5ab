"""Devices of other machines, by Ray: an actor for each GPU, or for the CPUs of a node that has none.

1. `cluster` watches which nodes there are, and has an executor use their devices.
2. `device` is such a device, as the executor knows devices; `host` is what runs there.
3. `models` are the files of models, which are sent once to each node.
4. `connection` starts a `process` of its own, the only module that knows Ray, and asks it over a `wire`.

https://docs.ray.io/en/latest/ray-core/actors.html
"""
