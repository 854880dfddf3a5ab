"""Parameters, sizes and prices, without a server."""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engines import OutputFormat
from onnx_models import Catalogue
from server.outbound.addresses import Reachable
from server.protocol.codec import JSON, MESSAGEPACK, Codec
from server.protocol.errors import ParameterError
from server.protocol.requests import Upscale
from server.protocol.sources import MAX_URL, StoredImage
from server.settings import Settings
from server.state.requests import UpscaleRequest
from server.upscale.auxiliaries import Beside
from server.upscale.checks import check
from server.upscale.pricing import effort, price
from server.upscale.request import Models, choose_models, input_source, request_for
from server.upscale.sizing import Area, Size, Sizing, sizing
from tests.server.support.harness import FAST_MODEL, upscale

SOURCE = StoredImage("550e8400-e29b-41d4-a716-446655440000")


def task_of(codec: Codec = JSON, **parameters: Any) -> Upscale:
    (raw,) = codec.split(codec.encode(upscale("x") | parameters))
    task = raw.parse()
    assert isinstance(task, Upscale)
    return task


def request_of(catalogue: Catalogue, codec: Codec = JSON, **parameters: Any) -> UpscaleRequest:
    task = task_of(codec, **parameters)
    models = choose_models(catalogue, task)
    check(task, models, Reachable())
    return request_for(
        task, models=models, source=SOURCE, parameter="inputs.image", warnings=(), beside=Beside()
    )


@pytest.mark.parametrize(
    ("parameters", "code", "parameter"),
    [
        ({"model": "no-such-model"}, "invalidModel", "model"),
        ({"model": ""}, "invalidModel", "model"),
        ({"upscaleFactor": 0.99}, "invalidUpscaleFactor", "upscaleFactor"),
        ({"upscaleFactor": 0}, "invalidUpscaleFactor", "upscaleFactor"),
        ({"upscaleFactor": -2}, "invalidUpscaleFactor", "upscaleFactor"),
        ({"upscaleFactor": 16.01}, "invalidUpscaleFactor", "upscaleFactor"),
        ({"upscaleFactor": 1e308}, "invalidUpscaleFactor", "upscaleFactor"),
        ({"upscaleFactor": 2, "targetMegapixels": 1}, "invalidTargetMegapixels", "targetMegapixels"),
        ({"width": 0}, "invalidWidth", "width"),
        ({"width": 80, "upscaleFactor": 2}, "invalidWidth", "width"),
        ({"width": 80, "resizeMode": "crop"}, "invalidResizeMode", "resizeMode"),
        ({"height": 80, "targetMegapixels": 1}, "invalidHeight", "height"),
        ({"targetMegapixels": 0}, "invalidTargetMegapixels", "targetMegapixels"),
        ({"targetMegapixels": -1}, "invalidTargetMegapixels", "targetMegapixels"),
        ({"targetMegapixels": 1e300}, "invalidTargetMegapixels", "targetMegapixels"),
        ({"outputType": []}, "invalidOutputType", "outputType"),
        ({"outputType": "file"}, "invalidOutputType", "outputType"),
        ({"outputFormat": "GIF"}, "invalidOutputFormat", "outputFormat"),
        ({"outputQuality": 19}, "invalidOutputQuality", "outputQuality"),
        ({"outputQuality": 100}, "invalidOutputQuality", "outputQuality"),
        ({"outputQuality": 10**30}, "invalidOutputQuality", "outputQuality"),
        ({"ttl": 0}, "invalidTtl", "ttl"),
        ({"ttl": 10**9}, "invalidTtl", "ttl"),
        ({"deliveryMethod": "pigeon"}, "invalidDeliveryMethod", "deliveryMethod"),
        ({"webhookURL": "ftp://example.org"}, "invalidWebhookURL", "webhookURL"),
        ({"webhookURL": f"https://{'a' * MAX_URL}"}, "invalidWebhookURL", "webhookURL"),
        ({"uploadEndpoint": "file:///tmp/a"}, "invalidUploadEndpoint", "uploadEndpoint"),
        ({"numberResults": 2}, "unsupportedNumberResults", "numberResults"),
        ({"numberResults": -(10**30)}, "unsupportedNumberResults", "numberResults"),
        ({"settings": {"steps": 20}}, "unsupportedSettingsSteps", "settings.steps"),
    ],
    ids=repr,
)
def test_what_is_not_offered_is_an_error_that_names_it(
    catalogue: Catalogue, parameters: dict[str, Any], code: str, parameter: str
) -> None:
    if {"targetMegapixels", "width", "height"} & parameters.keys():
        parameters = {"upscaleFactor": None} | parameters
    with pytest.raises(ParameterError) as caught:
        request_of(catalogue, **parameters)
    assert (caught.value.code, caught.value.parameter) == (code, parameter)


@pytest.mark.parametrize("name", ["upscaleFactor", "targetMegapixels"])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_messagepack_numbers_that_are_none_are_refused(
    catalogue: Catalogue, name: str, number: float
) -> None:
    with pytest.raises(ParameterError) as caught:
        request_of(catalogue, MESSAGEPACK, **{"upscaleFactor": None, name: number})
    assert caught.value.parameter == name


def test_harmless_ways_to_say_nothing_are_taken(catalogue: Catalogue) -> None:
    plain = request_of(catalogue, taskUUID=SOURCE.uuid)
    said = request_of(
        catalogue, taskUUID=SOURCE.uuid, checkNSFW=False, safety={"checkContent": False}, settings={},
        numberResults=1, targetMegapixels=None, ttl=None,
    )  # fmt: skip
    assert said == plain


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"inputs": {}}, "missingInputImage"),
        ({"inputs": {"image": "x"}, "inputImage": "x"}, "invalidInputImage"),
        ({"inputs": {"image": "x", "video": "x"}}, "unsupportedInputsVideo"),
    ],
)
async def test_there_is_exactly_one_input(parameters: dict[str, Any], code: str) -> None:
    with pytest.raises(ParameterError) as caught:
        await input_source(task_of(**parameters), JSON)
    assert caught.value.code == code


sides = st.integers(1, 20_000)
factors = st.sampled_from((1.0, 2.0, 4.0, 16.0)) | st.floats(1, 16)


def sized(catalogue: Catalogue, source: Size, limit: float = 128, **parameters: Any) -> Size:
    request = request_of(catalogue, outputFormat="PNG", **parameters)
    return sizing(request, catalogue.get(request.model), source, Settings(max_output_megapixels=limit)).size


@given(sides, sides, factors)
def test_a_factor_gives_its_size_within_what_the_model_can_do(
    catalogue: Catalogue, width: int, height: int, factor: float
) -> None:
    source = Size(width, height)
    if width * height * factor**2 > 127e6:
        with pytest.raises(ParameterError, match="megapixels"):
            sized(catalogue, source, limit=width * height * factor**2 / 2e6, upscaleFactor=factor)
        return
    size = sized(catalogue, source, upscaleFactor=factor)
    assert abs(size.width - width * factor) <= 0.5
    assert abs(size.height - height * factor) <= 0.5


@pytest.mark.parametrize(
    ("source", "factor", "size"),
    [((3, 5), 1.5, (5, 8)), ((1, 7), 2.5, (3, 18)), ((5, 5), 1.1, (6, 6)), ((1, 1), 1.2, (1, 1))],
)
def test_halves_are_rounded_up(
    catalogue: Catalogue, source: tuple[int, int], factor: float, size: tuple[int, int]
) -> None:
    assert sized(catalogue, Size(*source), upscaleFactor=factor) == size


def test_hidden_colours_need_a_format_with_transparency(catalogue: Catalogue) -> None:
    model = catalogue.get(FAST_MODEL)
    for output_format in ("PNG", "WEBP"):
        check(task_of(keepHiddenColors=True, outputFormat=output_format), Models(model), Reachable())
    with pytest.raises(ParameterError, match="JPG has no transparency") as caught:
        check(task_of(keepHiddenColors=True, outputFormat="JPG"), Models(model), Reachable())
    assert caught.value.parameter == "keepHiddenColors"


@given(sides, sides, st.floats(1e-6, 200))
def test_target_megapixels_gives_about_that_or_says_what_is_possible(
    catalogue: Catalogue, width: int, height: int, target: float
) -> None:
    source = Size(width, height)
    factor = math.sqrt(target / source.megapixels)
    if not 1 <= factor <= 16 or target > 127:
        with pytest.raises(ParameterError, match="megapixels"):
            sized(catalogue, source, limit=127, upscaleFactor=None, targetMegapixels=target)
        return
    size = sized(catalogue, source, upscaleFactor=None, targetMegapixels=target)
    assume(min(width, height) > 50)
    assert size.megapixels == pytest.approx(target, rel=0.03)


@given(sides, sides, st.one_of(st.none(), sides), st.one_of(st.none(), sides))
def test_width_and_height_are_met_or_it_says_what_is_possible(
    catalogue: Catalogue, width: int, height: int, wide: int | None, high: int | None
) -> None:
    assume((wide, high) != (None, None))
    source = Size(width, height)
    by = min(side / length for side, length in ((wide, width), (high, height)) if side is not None)
    wanted = {"upscaleFactor": None, "width": wide, "height": high}
    if not 1 <= by <= 16 or source.megapixels * by**2 > 127:
        with pytest.raises(ParameterError, match="pixels"):
            sized(catalogue, source, limit=127, **wanted)
        return
    size = sized(catalogue, source, **wanted)
    assert wide is None or size.width <= wide
    assert high is None or size.height <= high
    assert size.width == wide or size.height == high


@pytest.mark.parametrize(
    ("mode", "sizing_"),
    [
        ("fit", Sizing(Size(400, 200))),
        ("fill", Sizing(Size(1000, 500))),
        ("crop", Sizing(Size(400, 500), Area(60, 0, 80, 100))),
        ("stretch", Sizing(Size(400, 500))),
    ],
)
def test_width_and_height_together_mean_what_the_mode_says(
    catalogue: Catalogue, mode: str, sizing_: Sizing
) -> None:
    request = request_of(catalogue, upscaleFactor=None, width=400, height=500, resizeMode=mode)
    assert sizing(request, catalogue.get(FAST_MODEL), Size(200, 100), Settings()) == sizing_


@given(sides, sides, sides, sides)
def test_a_cut_is_within_the_input_and_keeps_proportions(
    catalogue: Catalogue, width: int, height: int, wide: int, high: int
) -> None:
    source = Size(width, height)
    assume(1 <= max(wide / width, high / height) <= 16 and wide * high < 127e6 and max(wide, high) < 65_000)
    request = request_of(
        catalogue, upscaleFactor=None, outputFormat="PNG", width=wide, height=high, resizeMode="crop"
    )
    size, area = sizing(request, catalogue.get(FAST_MODEL), source, Settings())
    assert size == (wide, high)
    left, top, cut_width, cut_height = area or Area(0, 0, width, height)
    assert 0 <= left <= left + cut_width <= width
    assert 0 <= top <= top + cut_height <= height
    assert cut_width == width or cut_height == height
    factor = max(wide / width, high / height)
    assert cut_width == 1 or abs(cut_width - wide / factor) <= 1
    assert cut_height == 1 or abs(cut_height - high / factor) <= 1


def test_an_error_about_the_size_names_the_setting_and_what_fits(catalogue: Catalogue) -> None:
    with pytest.raises(
        ParameterError, match=r"max_output_megapixels\); the largest factor that fits is 3\.26"
    ):
        sized(catalogue, Size(4000, 3000), upscaleFactor=4)


def test_passes_beyond_the_models_scale_are_paid_for(catalogue: Catalogue) -> None:
    model = catalogue.get(FAST_MODEL)
    assert effort(model, Size(10, 10), Size(160, 160)) == 1 + Fraction(1, 16)
    assert effort(model, Size(10, 10), Size(40, 40)) == 1


@pytest.mark.parametrize("output_format", list(OutputFormat))
def test_what_a_format_cannot_hold_is_refused(catalogue: Catalogue, output_format: OutputFormat) -> None:
    request = request_of(catalogue, outputFormat=output_format.value)
    source = Size(output_format.max_side // 2 + 1, 1)
    with pytest.raises(ParameterError) as caught:
        sizing(request, catalogue.get(FAST_MODEL), source, Settings(max_output_megapixels=1e9))
    assert caught.value.parameter == "outputFormat"


@given(sides, sides, st.decimals(0, 10, places=6))
def test_a_price_is_exact_and_rounded_up_to_whole_microdollars(
    width: int, height: int, usd_per_megapixel: Decimal
) -> None:
    nanodollars = price(usd_per_megapixel, Size(width, height))
    exact = usd_per_megapixel * width * height * 1000
    assert nanodollars % 1000 == 0
    assert exact <= nanodollars < exact + 1000


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "upscaleFactor": factors,
            "outputQuality": st.integers(20, 99),
            "outputFormat": st.sampled_from(["JPG", "PNG", "WEBP"]),
            "outputType": st.lists(st.sampled_from(["URL", "base64Data", "dataURI"]), min_size=1, max_size=8),
            "ttl": st.integers(1, 10**8),
            "includeCost": st.booleans(),
        },
    )
)
def test_a_recorded_request_is_read_back_the_same(catalogue: Catalogue, parameters: dict[str, Any]) -> None:
    request = request_of(catalogue, **parameters)
    recorded = msgspec.json.encode(request)
    assert msgspec.json.decode(recorded, type=UpscaleRequest) == request
    assert request_of(catalogue, MESSAGEPACK, taskUUID=request.task_uuid, **parameters) == request
