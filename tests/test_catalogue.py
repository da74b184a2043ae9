"""The catalogue: each entry leads to something that takes what the entry says of it."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fusionkd_lib.catalogue import DATASETS, FUSED, REPRESENTATIONS, TRUNKS, label, load
from fusionkd_lib.params import Params
from fusionkd_lib.representations.base import Representation
from fusionkd_lib.trunks import build_trunk


def arguments_of(name: str) -> set[str]:
    builder = load(name)
    # A subclass hands some on to its base by `**`.
    builders = builder.__mro__[:-1] if inspect.isclass(builder) else [builder]
    return set().union(*(inspect.signature(b).parameters for b in builders))


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_a_representation_takes_the_settings_of_its_entry(name):
    entry = REPRESENTATIONS[name]
    assert issubclass(load(entry.builder), Representation)
    shared = {"sample_rate", "hop_length"}
    assert {*entry.settings.values(), *shared} <= arguments_of(entry.builder)
    assert set(entry.settings) <= set(Params.model_fields)


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_takes_the_settings_of_its_entry(name):
    entry = DATASETS[name]
    assert {*entry.settings.values()} <= arguments_of(entry.loader)
    assert ("root" in arguments_of(entry.loader)) == (entry.folder is not None)
    assert {*entry.settings, *entry.lowest} <= set(Params.model_fields)


@pytest.mark.parametrize("name", TRUNKS)
def test_the_depth_of_a_trunk_is_its_number_of_feature_layers_at_every_width(name):
    for width in TRUNKS[name].widths or (0.25, 1.0):
        layers, _ = build_trunk(name, width=width)
        assert len(layers) == TRUNKS[name].depth


def test_no_two_representations_have_a_label_or_a_colour_in_common():
    entries = REPRESENTATIONS.values()
    assert len({entry.label for entry in entries}) == len(entries)
    assert len({entry.colour for entry in entries}) == len(entries)
    assert all(re.fullmatch("#[0-9A-F]{6}", entry.colour) for entry in entries)


def test_a_classifier_is_called_by_its_representation_or_the_fused_one():
    assert [label(name) for name in REPRESENTATIONS] == [
        entry.label for entry in REPRESENTATIONS.values()
    ]
    assert FUSED not in REPRESENTATIONS
    assert label(FUSED) == "Fused classifier"


def test_no_name_of_a_representation_breaks_the_names_of_runs():
    # `<dataset>-fold1-seed0-<one>+<another>-<digest>`: a folder, and a row of a table.
    for name in (*REPRESENTATIONS, *DATASETS, FUSED):
        assert re.fullmatch("[a-z0-9_]+", name)


def test_the_catalogue_imports_nothing_heavy():
    code = (
        "import sys, fusionkd_lib.catalogue; print(*{'torch', 'numpy', 'pandas'} & {*sys.modules})"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert answer.stdout.strip() == ""
