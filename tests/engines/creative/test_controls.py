"""What a person may turn, and what it comes to."""

from dataclasses import fields

import pytest

from engines import KNOBS, PRESETS, STYLES, Controls, Creative, Diffusion

WANTED = Diffusion(prompt="a cat", seed=3)


def test_every_effect_is_of_a_field_that_there_is_and_has_a_preset():
    effects = {field.name for kind in (Creative, Diffusion) for field in fields(kind)}
    controls = {field.name for field in fields(Controls)}
    assert {knob.changes for knob in KNOBS} <= effects
    assert len({knob.changes for knob in KNOBS}) == len(KNOBS)
    for values in PRESETS.values():
        assert set(values) == {knob.name for knob in KNOBS} <= controls
        assert all(knob.low <= values[knob.name] <= knob.high for knob in KNOBS)


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: f"{knob.name}-{knob.changes}")
def test_each_effect_rises_or_falls_all_the_way(knob):
    steps = [knob.low + (knob.high - knob.low) * share / 4 for share in range(5)]
    found = []
    for value in steps:
        wanted = Controls(**{knob.name: value}).diffusion(WANTED)
        both = {**vars(wanted), **vars(wanted.creative)}
        found.append(both[knob.changes])
    assert len(set(found)) == len(found)
    assert found in (sorted(found), sorted(found, reverse=True))


def test_what_is_turned_goes_before_the_preset_and_what_is_named_before_both():
    plain = Controls(preset="creative").diffusion(WANTED)
    turned = Controls(preset="creative", creativity=10, prompt_fidelity=0).diffusion(WANTED)
    named = Controls(creativity=10, strength=0.9, guidance=3.0, control=0.1).diffusion(WANTED)
    assert plain.strength > turned.strength == 0.1
    assert turned.guidance == 1
    assert (named.strength, named.guidance, named.creative.control) == (0.9, 3.0, 0.1)


def test_presets_are_ever_freer():
    strengths, controls = zip(
        *(
            (wanted.strength, -wanted.creative.control)
            for wanted in (Controls(preset=preset).diffusion(WANTED) for preset in PRESETS)
        ),
        strict=True,
    )
    assert list(strengths) == sorted(strengths)
    assert list(controls) == sorted(controls)


def test_a_style_adds_its_words_unless_the_prompts_are_taken_as_they_are():
    styled = Controls(style="anime").diffusion(WANTED)
    assert styled.prompt == f"a cat, {STYLES['anime'].wanted}"
    assert styled.negative_prompt == STYLES["anime"].unwanted
    plain = Controls(style="anime", own_words=True).diffusion(WANTED)
    assert (plain.prompt, plain.negative_prompt) == ("a cat", "")
    assert (styled.seed, plain.seed) == (3, 3)
