"""`getTaskDetails`: what a task was sent as, and what became of it."""

import base64

from server.serving import EmbeddedServer
from tests.server.support.harness import connected, make_image, new_uuid, open_account, upscale


async def test_a_task_and_its_answer_can_be_looked_at(server: EmbeddedServer) -> None:
    image = base64.b64encode(make_image(seed=78)).decode()
    good, bad = upscale(image, outputType="base64Data", includeCost=True), upscale(new_uuid())
    async with connected(server) as peer:
        result, error = await peer.ask(good, bad)

        def ask(task: str) -> dict[str, str]:
            return {"taskType": "getTaskDetails", "taskUUID": task}

        (details,) = await peer.ask(ask(good["taskUUID"]))
        (sent,) = details["request"]
        (answer,) = details["response"]["data"]
        for name in ("taskType", "taskUUID", "model", "upscaleFactor", "outputFormat", "includeCost"):
            assert sent[name] == good[name]
        assert sent["outputType"] == ["base64Data"]
        assert sent["inputs"] == {"image": result["inputImageUUID"]}
        assert (answer["imageUUID"], answer["cost"]) == (result["imageUUID"], result["cost"])
        assert "imageBase64Data" not in answer
        (again,) = await peer.ask(sent | {"taskUUID": new_uuid()})
        assert again["imageBase64Data"] == result["imageBase64Data"], "what is given can be sent again"
        (details,) = await peer.ask(ask(bad["taskUUID"]))
        assert details["response"]["errors"][0]["code"] == error["code"] == "imageNotFound"
        (unknown,) = await peer.ask(ask(new_uuid()))
    assert unknown["code"] == "taskNotFound"
    async with connected(server, key=open_account(server).key) as other:
        (refused,) = await other.ask(ask(good["taskUUID"]))
    assert refused["code"] == "taskNotFound"
