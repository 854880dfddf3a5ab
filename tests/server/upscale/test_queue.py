"""Where tasks stand in line."""

import base64

from hypothesis import given
from hypothesis import strategies as st

from server.upscale.queue import Queue
from tests.server.conftest import StartServer
from tests.server.support.harness import connected, make_image, until, upscale
from tests.server.support.stepped_device import SteppedDevice


class Waiting:
    queue_position: int | None = None


@given(st.lists(st.tuples(st.sampled_from(["enter", "begin", "leave"]), st.integers(0, 30))))
def test_positions_are_those_of_who_waits_and_each_change_is_reported(steps: list[tuple[str, int]]) -> None:
    tasks = [Waiting() for _ in range(31)]
    reported: dict[Waiting, int | None] = {}
    queue = Queue(lambda task: reported.__setitem__(task, task.queue_position))
    entered: list[Waiting] = []
    begun: set[Waiting] = set()
    for step, index in steps:
        task = tasks[index]
        if step == "enter" and task not in entered and task not in begun:
            queue.enter(task)
            entered.append(task)
        elif step == "begin" and task in entered:
            queue.begin(task)
            queue.begin(task)  # a picture that is tried again begins twice
            entered.remove(task)
            begun.add(task)
            assert task.queue_position is None
        elif step == "leave" and (task in entered or task in begun):
            queue.leave(task)
            entered = [each for each in entered if each is not task]
            begun.discard(task)
            tasks[index] = Waiting()
    with_position = [task for task in entered[:20] if task.queue_position is not None]
    for task in with_position:
        assert task.queue_position == reported[task] == entered.index(task) + 1


async def test_a_task_learns_its_place_and_that_its_work_begins(
    device: SteppedDevice, start_server: StartServer
) -> None:
    image = base64.b64encode(make_image(40, 30)).decode()
    first, silent, third = (
        upscale(image, upscaleFactor=4, includeProgress=asked, outputType="base64Data")
        for asked in (True, False, True)
    )
    server = start_server()
    async with connected(server) as peer:
        for count, task in enumerate((first, silent, third), 1):
            await peer.send(task)
            await until(lambda count=count: server.services.runner.count == count)
        places = [await peer.receive_item()]
        assert places[0]["taskUUID"] == third["taskUUID"]
        assert places[0]["queuePosition"] in (2, 3), "whether the first has begun by then or not"
        device.run_freely()
        done = set()
        while len(done) < 3:
            item = await peer.receive_item()
            if item.get("status") != "processing":
                done.add(item["taskUUID"])
            elif item["taskUUID"] == third["taskUUID"]:
                places.append(item)
            else:
                assert item["taskUUID"] == first["taskUUID"]
    assert "queuePosition" not in places[-1]
    positions = [place["queuePosition"] for place in places if "queuePosition" in place]
    assert positions == sorted(positions, reverse=True)
