"""A host whose device waits for as long as the node's variable WAIT says, in seconds."""

import os
import time

from engines.ray.host import DeviceHost
from tests.engines.support.fake_device import FakeDevice, FakeSession


class WaitingDevice(FakeDevice):
    def open(self, network):
        self.opened.append(network.path)
        return WaitingSession(self)


class WaitingSession(FakeSession):
    def run(self, tiles):
        time.sleep(float(os.environ["WAIT"]))
        return super().run(tiles)


class WaitingHost(DeviceHost):
    def __init__(self, wanted):
        super().__init__(wanted, find=lambda *_: (WaitingDevice(largest_batch=1),))
