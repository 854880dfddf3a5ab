"""`modelSearch`: the installed models."""

from decimal import Decimal

import pytest

from onnx_models import Catalogue
from server.serving import EmbeddedServer
from tests.server.conftest import StartServer
from tests.server.support.harness import Item, connected, new_uuid


async def search(server: EmbeddedServer, **filters: object) -> Item:
    async with connected(server) as peer:
        return (await peer.ask({"taskType": "modelSearch", "taskUUID": new_uuid(), **filters}))[0]


def names(found: Item) -> list[str]:
    return [model["name"] for model in found["results"]]


async def test_without_filters_all_models_are_listed(server: EmbeddedServer, catalogue: Catalogue) -> None:
    found = await search(server)
    assert names(found) == [model.name for model in catalogue]
    assert found["totalResults"] == len(list(catalogue))
    assert found["taskType"] == "modelSearch"


async def test_a_model_is_described_as_the_catalogue_has_it(
    server: EmbeddedServer, catalogue: Catalogue
) -> None:
    for item in (await search(server))["results"]:
        model = catalogue.get(item["air"])
        assert item["name"] == model.name
        assert item["title"] == model.title
        assert item["comment"] == model.description
        assert item["category"] == "upscaler"
        assert item["architecture"] == model.family
        assert item["version"] == model.air.rpartition("@")[2]
        assert item["upscaleFactors"] == list(model.factors)
        assert item["fractionalFactors"] == model.fractional
        assert item["pricePerMegapixel"] == float(model.price_per_megapixel)
        assert item["licence"] == model.licence


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("animevideov3", ["realesr-animevideov3"]),
        ("ANIMEVIDEOV3", ["realesr-animevideov3"]),
        ("runware:504@1", ["realesrgan-x4plus"]),
        ("anime illustrations", ["realesrgan-x4plus-anime"]),
        ("restores photographs", ["realesrgan-x4plus"]),
        ("no such model", []),
    ],
)
async def test_all_words_must_be_found(server: EmbeddedServer, words: str, found: list[str]) -> None:
    result = await search(server, search=words)
    assert names(result) == found
    assert result["totalResults"] == len(found)


async def test_filters_narrow_the_list(server: EmbeddedServer, catalogue: Catalogue) -> None:
    family = next(iter(catalogue)).family
    expected = [model.name for model in catalogue if model.family == family]
    assert names(await search(server, architecture=family)) == expected
    assert names(await search(server, category="upscaler")) == [model.name for model in catalogue]
    for nothing in ({"architecture": "sdxl"}, {"category": "checkpoint"}):
        assert (await search(server, **nothing)) | {"taskUUID": ""} == {
            "taskType": "modelSearch",
            "taskUUID": "",
            "totalResults": 0,
            "results": [],
        }


async def test_pages_make_up_the_whole_list(server: EmbeddedServer, catalogue: Catalogue) -> None:
    count = len(list(catalogue))
    pages = [await search(server, limit=1, offset=offset) for offset in range(count + 1)]
    assert [name for page in pages for name in names(page)] == [model.name for model in catalogue]
    assert {page["totalResults"] for page in pages} == {count}
    assert pages[-1]["results"] == []


@pytest.mark.parametrize(
    ("filters", "parameter"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"offset": -1}, "offset"),
        ({"search": 5}, "search"),
    ],
)
async def test_a_wrong_page_is_refused(server: EmbeddedServer, filters: Item, parameter: str) -> None:
    error = await search(server, **filters)
    assert error["parameter"] == parameter


async def test_prices_of_the_settings_are_shown(start_server: StartServer) -> None:
    server = start_server(prices={"realesr-animevideov3": Decimal("0.5")})
    (model,) = (await search(server, search="animevideov3"))["results"]
    assert model["pricePerMegapixel"] == 0.5
