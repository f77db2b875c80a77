"""A request that cannot be meant is refused at the door, with field, value and cure."""

from typing import Any

import pytest
from pydantic import ValidationError

from bonsai_core.config import (
    PRESETS,
    CalibrationSource,
    ModelSource,
    Preset,
    PruneRequest,
    Pruning,
)

REQUEST: dict[str, Any] = {
    "model": {"source": "/models/small"},
    "calibration": {"source": "/data/text.txt", "samples": 8, "sequence_length": 64},
    "target": {"sparsity": 0.5},
}


def changed(path: str, value: object) -> dict[str, Any]:
    section, field = path.split(".")
    return REQUEST | {section: REQUEST.get(section, {}) | {field: value}}


def test_a_short_request_is_a_whole_one() -> None:
    request = PruneRequest.model_validate(REQUEST)
    assert request.pruning == Pruning()
    assert request.calibration.tokens == 512
    assert PruneRequest.model_validate_json(request.model_dump_json()) == request


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("target.sparsity", 0),
        ("target.sparsity", 1),
        ("target.sparsity", float("nan")),
        ("calibration.samples", 0),
        ("calibration.sequence_length", 7),
        ("model.source", ""),
        ("model.dtype", "int8"),
        ("model.gguf_file", "../model.gguf"),
        ("model.gguf_file", "model.bin"),
        ("pruning.preset", "cheap"),
        ("pruning.preset", 3),
        ("pruning.recipe", ""),
        ("pruning.recipe", "a recipe"),
        ("pruning.prior", "gradient"),
        ("pruning.utility", "N L L"),
        ("pruning.improvements", -1),
        ("pruning.damping", 0),
        ("pruning.damping", 11),
        ("pruning.masks_per_round", 2),
        ("pruning.masks_per_round", 7),
        ("pruning.sparsity_per_round", 0.001),
        ("pruning.align", 0),
        ("pruning.seed", -1),
        ("pruning.seed", 2**63),
        ("pruning.mask_per_round", 8),
    ],
)
def test_a_value_out_of_range_is_refused_at_its_field(path: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        PruneRequest.model_validate(changed(path, value))
    assert ".".join(str(part) for part in caught.value.errors()[0]["loc"]) == path


@pytest.mark.parametrize("preset", list(Preset))
def test_a_preset_fills_in_what_is_not_said(preset: Preset) -> None:
    found = Pruning.model_validate({"preset": preset})
    for field, value in PRESETS[preset].items():
        assert getattr(found, field) == value
    mix = [{"name": "nll"}, {"name": "mine", "weight": 2.0}]
    given = {"prior": "random", "refit": not found.refit, "recipe": "mine", "utility": mix}
    changed = Pruning.model_validate({"preset": preset, **given})
    assert (changed.prior, changed.refit, changed.recipe) == ("random", not found.refit, "mine")
    assert [part.name for part in changed.utilities] == ["nll", "mine"]
    for whole in (found, changed):
        assert Pruning.model_validate(whole.model_dump(mode="json")) == whole


def test_without_a_preset_it_is_the_best_as_the_schema_says() -> None:
    assert Pruning().preset is Preset.BEST
    defaults = {name: field.default for name, field in Pruning.model_fields.items()}
    assert PRESETS[Preset.BEST].items() <= defaults.items()
    assert Pruning().model_dump() == defaults


@pytest.mark.parametrize(
    ("recipe", "samples", "asked", "expected"),
    [
        ("random_masks", 32, None, 36),  # 4 of them its own
        ("random_masks", 32, 5, 5),
        ("measured_damage", 64, None, 4),
        ("measured_damage", 16, None, 4),
        ("measured_damage", 9, None, 2),
        ("measured_damage", 1, None, 1),
        ("mine", 32, 32, 32),
    ],
)
def test_trials_are_measured_on_as_much_as_their_recipe_needs(
    recipe: str, samples: int, asked: int | None, expected: int
) -> None:
    body = changed("calibration.samples", samples)
    body["pruning"] = {"recipe": recipe, "samples_per_mask": asked}
    request = PruneRequest.model_validate(body)
    assert request.trial_samples == expected
    length = request.calibration.sequence_length
    assert request.trial_length == (length if recipe == "random_masks" else min(256, length))


@pytest.mark.parametrize("samples", [1, 2, 4, 9, 32, 128])
@pytest.mark.parametrize("asked", [None, 1, 3])
@pytest.mark.parametrize("share", [0.0, 0.125, 0.5, 0.9])
@pytest.mark.parametrize("preset", list(Preset))
def test_every_part_of_the_batch_has_given_text_and_the_shares_add_up(
    samples: int, asked: int | None, share: float, preset: Preset
) -> None:
    body = changed("calibration.samples", samples)
    asked = None if asked is None else min(asked, samples)
    body["pruning"] = {"preset": preset, "samples_per_mask": asked, "own_text": share}
    request = PruneRequest.model_validate(body)
    assert request.batch_samples == samples + request.own_samples
    assert abs(request.own_samples - share * samples) <= 0.5
    assert request.trial_given_samples + request.trial_own_samples == request.trial_samples
    assert 1 <= request.trial_given_samples <= samples
    assert 0 <= request.trial_own_samples <= request.own_samples


def test_an_odd_number_of_masks_is_told_the_next_even_one() -> None:
    with pytest.raises(ValidationError, match="use 8"):
        PruneRequest.model_validate(changed("pruning.masks_per_round", 7))


def test_masks_cannot_use_more_sequences_than_there_are() -> None:
    with pytest.raises(ValidationError, match=r"samples_per_mask: got 9.*\(8\)"):
        PruneRequest.model_validate(changed("pruning.samples_per_mask", 9))


def test_a_request_cannot_be_changed_afterwards() -> None:
    request = PruneRequest.model_validate(REQUEST)
    with pytest.raises(ValidationError, match="frozen"):
        request.pruning.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize("source", ["/models/a", "./a", "../a", ".", "~/a"])
def test_a_path_is_a_folder_and_has_no_revision(source: str) -> None:
    assert ModelSource(source=source).is_folder
    with pytest.raises(ValidationError, match="a revision belongs to a hub id"):
        ModelSource(source=source, revision="main")


@pytest.mark.parametrize("source", ["owner/name", "name"])
def test_what_may_be_a_hub_id_may_have_a_revision(source: str) -> None:
    assert not ModelSource(source=source, revision="main").is_folder


@pytest.mark.parametrize(
    ("source", "is_file"),
    [
        ("/data/text.txt", True),
        ("text.txt", True),
        ("data/rows.jsonl", True),
        ("~/text.txt", True),
        ("./text", True),
        ("owner/name", False),
        ("wikitext:wikitext-2-raw-v1:test", False),
    ],
)
def test_what_a_calibration_source_names_follows_from_its_spelling(
    source: str, is_file: bool
) -> None:
    assert CalibrationSource(source=source).is_file is is_file


def test_every_field_explains_itself_in_the_schema() -> None:
    definitions = PruneRequest.model_json_schema()["$defs"]
    for name, definition in definitions.items():
        for field, schema in definition.get("properties", {}).items():
            assert schema.get("description"), f"{name}.{field}"
