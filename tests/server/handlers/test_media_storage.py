"""`mediaStorage`: images are kept as by `imageUpload`, and deleted."""

import base64

from server.serving import EmbeddedServer
from tests.server.support.harness import (
    connected,
    make_image,
    new_uuid,
    open_account,
    request,
    upscale,
)


async def test_an_image_is_kept_used_and_deleted(server: EmbeddedServer) -> None:
    def task(operation: str, media: str) -> dict[str, str]:
        fields = {"taskType": "mediaStorage", "taskUUID": new_uuid()}
        return fields | {"operation": operation, "media": media}

    image = base64.b64encode(make_image(seed=77)).decode()
    async with connected(server) as peer:
        (kept,) = await peer.ask(task("upload", f"data:image/png;base64,{image}"))
        (result,) = await peer.ask(upscale(kept["mediaUUID"]))
        assert (await request(kept["mediaURL"])).status == 200
        async with connected(server, key=open_account(server).key) as other:
            (refused,) = await other.ask(task("delete", kept["mediaUUID"]))
        assert (refused["code"], refused["parameter"]) == ("imageNotFound", "media"), (
            "it is another account's"
        )
        for media in (kept["mediaUUID"], result["imageUUID"]):
            (deleted,) = await peer.ask(task("delete", media))
            assert (deleted["operation"], deleted["mediaUUID"]) == ("delete", media)
            assert "mediaURL" not in deleted
        for url in (kept["mediaURL"], result["imageURL"]):
            assert (await request(url)).status == 404
        gone, again, unnamed, wrong = await peer.ask(
            upscale(kept["mediaUUID"]),
            task("delete", kept["mediaUUID"]),
            task("delete", image),
            task("forget", kept["mediaUUID"]),
        )
    assert (gone["code"], again["code"]) == ("imageNotFound", "imageNotFound")
    assert (unnamed["code"], unnamed["parameter"]) == ("invalidMedia", "media")
    assert wrong["message"] == "operation must be one of delete, upload, not 'forget'"
