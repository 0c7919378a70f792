"""Identities of stores, and the settings in which two configurations differ."""

import msgspec

from prectr.state.identity import StoreIdentity, config_diff, decode_identity, encode_identity

IDENTITY = StoreIdentity("cluster-1", "search-events", "id-1", "join", 0, {"attribution_window": 120.0})


def test_an_identity_is_decoded_as_encoded() -> None:
    assert decode_identity(encode_identity(IDENTITY)) == IDENTITY


def test_equal_configurations_have_no_difference() -> None:
    assert config_diff({"seed": 1, "nested": {"a": [1]}}, {"nested": {"a": [1]}, "seed": 1}) == ""
    assert IDENTITY.diff(IDENTITY) == ""


def test_each_setting_that_differs_is_named_with_both_values() -> None:
    assert config_diff({"seed": 1, "new": "y"}, {"seed": 2, "gone": "x"}) == (
        "gone is not set, was x; new is y, was not set; seed is 1, was 2"
    )


def test_nested_settings_are_named_by_their_path() -> None:
    other = msgspec.structs.replace(IDENTITY, partition=1, config={"attribution_window": 60.0})
    assert other.diff(IDENTITY) == "config.attribution_window is 60.0, was 120.0; partition is 1, was 0"


def test_lists_and_empty_values_are_readable() -> None:
    assert config_diff({"without": ("debias", "incentive"), "hidden": (7, 7)}, {"without": (), "hidden": [64]}) == (
        "hidden is [7, 7], was [64]; without is debias, incentive, was nothing"
    )


def test_the_verb_introduces_the_other_value() -> None:
    assert config_diff({"seed": 1}, {"seed": 2}, "on rank 0 it is") == "seed is 1, on rank 0 it is 2"
