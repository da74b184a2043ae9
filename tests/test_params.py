"""Parameters: what is wrong is refused in one sentence that names the key and the way out."""

import ast
import itertools
import math
import re
from datetime import date
from pathlib import Path

import jupytext
import nbformat
import pytest
import torch
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from papermill.utils import find_first_tagged_cell_index

from fusionkd_lib import speed
from fusionkd_lib.errors import InputError
from fusionkd_lib.params import (
    SHORTCUTS,
    Params,
    load_params,
    make_params,
    notebook_params,
    read_yaml,
)
from fusionkd_lib.runs import run_name, settle
from fusionkd_lib.trunks import build_trunk

ROOT = Path(__file__).parents[1]
QUICK = sorted((ROOT / "params" / "quick").glob("*.yaml"))
PARAMETER_FILES = sorted((ROOT / "params").rglob("*.yaml"))
CHAPTERS = ("03_branch_pretraining", "04_fusion_and_distillation")


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# The paper's settings


def test_the_defaults_are_the_papers_settings():
    params = Params()
    # Sections IV-A to IV-D, in the paper's order.
    assert (params.sample_rate, params.duration, params.n_mels) == (44100, 4.0, 128)
    assert (params.trunk, params.width, params.head) == ("mobilenet_v2", 1.0, (1280, 512))
    assert (params.epochs, params.lr, params.lr_factor, params.patience) == (100, 0.01, 0.1, 5)
    assert (params.kd_loss, params.kd_weight) == ("mse", 0.01)
    assert params.pair == "logmel + gammatone"


# Refusals


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("epoch", "epochs"),
        ("batchsize", "batch_size"),
        ("sample-rate", "sample_rate"),
        ("learning_rate", "lr"),
        ("sr", "sample_rate"),
        ("pair", "representations"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_spelling(key, nearest):
    with pytest.raises(
        InputError, match=f"^parameters: unknown key '{key}': did you mean '{nearest}'"
    ):
        make_params({key: 3})


def test_an_unknown_key_that_is_near_to_none_gets_no_guess():
    with pytest.raises(InputError, match=r"unknown key 'zzz': leave it out$"):
        make_params({"zzz": 3})


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("epochs", "ten", "a whole number"),
        ("epochs", 1.5, "a whole number"),
        ("epochs", True, "a whole number"),
        ("epochs", None, "a whole number"),
        ("epochs", 0, "a number above 0"),
        ("seed", 2**32, "a number below 4294967296"),
        ("lr", 0, "a number above 0"),
        ("lr", float("nan"), "a finite number"),
        ("duration", float("inf"), "a finite number"),
        ("temperature", -1.0, "a number above 0"),
        ("val_fraction", 1.0, "a number below 1"),
        ("ema_decay", 1.0, "a number below 1"),
        ("warm_up", 0.0, "a number above 0"),
        ("width", 3.0, "2 or less"),
        ("batch_size", 1, "2 or more"),
        ("micro_batch", 1, "2 or more"),
        ("n_folds", 2, "3 or more"),
        ("tap", 0, "a number below 0"),
        ("drop_leaked", "yes", "true or false"),
        ("data_root", 3, "text"),
        ("head", 1280, "a list"),
        ("head", [1280, "many"], "a whole number"),
        ("head", [1280, 0], "a number above 0"),
        ("representations", "logmel", "a list"),
        ("representations", [], "a list of 1 or more"),
        ("train_folds", 2, "a list"),
        ("train_folds", [], "a list of 1 or more"),
        ("train_folds", [2, 0], "a number above 0"),
        ("shortcuts", 3, "none or a list of names"),
        ("augmentation", None, "none or a list of names"),
    ],
)
def test_a_wrong_type_or_range_is_refused_with_key_and_value(key, value, allowed):
    inner = value[-1] if isinstance(value, list) and value else value
    with pytest.raises(InputError) as caught:
        make_params({key: value})
    assert str(caught.value) == f"parameters: {key} = {inner!r} is not allowed: use {allowed}"


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("kd_loss", "msee", "'mse', 'l2', 'kl', 'standardised_kl'; did you mean 'mse'"),
        ("representations", ["logmel", "cqtt"], "'gammatone'; did you mean 'cqt'"),
        ("dataset", "urbansound", "did you mean 'urbansound8k'"),
        ("schedule", "onecycle", "'plateau', 'one_cycle'; did you mean 'one_cycle'"),
        ("optimizer", "adam", "'amsgrad', 'adamw'; did you mean 'adamw'"),
        ("select", "best", "'joint', 'per_head', 'last'"),
        ("trunk", "resnet18", "'mobilenet_v2', .*'shufflenet_v2', 'squeezenet1_1'"),
        ("shortcuts", "al", "'none', 'all', 'bfloat16'.*; did you mean 'all'"),
        ("shortcuts", ["bfloat61"], "'bfloat16'.*; did you mean 'bfloat16'"),
        ("augmentation", ["mixupp"], "'masks', 'mixup'; did you mean 'mixup'"),
    ],
)
def test_a_word_that_is_none_of_the_choices_gets_them_and_the_nearest(key, value, hint):
    with pytest.raises(InputError, match=f"{key} = .* is not allowed: use one of .*{hint}"):
        make_params({key: value})


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"representations": ["cqt", "logmel", "cqt"]}, "use each name once"),
        ({"branch": "cqt"}, "branch = 'cqt' is not allowed: use one of logmel, gammatone"),
        ({"fold": 6}, "fold = 6 is not allowed: urban_synth has folds 1 to 5"),
        ({"fold": 9, "n_folds": 8}, "folds 1 to 8"),
        ({"dataset": "urbansound8k", "fold": 11}, "urbansound8k has folds 1 to 10"),
        ({"dataset": "sonyc_ust", "fold": 2}, "sonyc_ust has folds 1 to 1"),
        (
            {"data_root": "clips"},
            "data_root = 'clips' is not allowed: leave it out, since urban_synth is",
        ),
        ({"duration": 0.2}, "duration = 0.2 is not allowed: urban_synth is synthesised from 0.25"),
        ({"sample_rate": 4000}, "sample_rate = 4000 is not allowed: .* from 8000 up"),
        ({"weights": "imagenet", "width": 0.5}, "ImageNet weights exist for width 1.0 alone"),
        ({"trunk": "shufflenet_v2", "width": 0.25}, "shufflenet_v2 comes in width 0.5 and 1.0"),
        ({"trunk": "squeezenet1_1", "width": 0.5}, "squeezenet1_1 comes in width 1.0"),
        (
            {"trunk": "shufflenet_v2", "tap": -7},
            "tap = -7 is not allowed: shufflenet_v2 has 6 feature layers",
        ),
        ({"train_folds": [2, 6]}, r"train_folds = \[2, 6\] is not allowed: .* folds 1 to 5"),
        ({"dataset": "sonyc_ust", "train_folds": [2]}, "sonyc_ust has folds 1 to 1"),
        ({"micro_batch": 65}, "micro_batch = 65 is not allowed: use at most batch_size = 64"),
        (
            {"judged_on": "validation", "validation": "none"},
            "validation = 'none' is not allowed: use grouped",
        ),
    ],
)
def test_values_that_are_impossible_together_are_refused(values, fault):
    with pytest.raises(InputError, match=fault):
        make_params(values)


@pytest.mark.parametrize("trunk", ["mobilenet_v2", "shufflenet_v2", "squeezenet1_1"])
def test_the_deepest_tap_that_is_allowed_is_the_trunks_first_layer(trunk):
    depth = len(build_trunk(trunk)[0])
    assert make_params({"trunk": trunk, "tap": -depth}).tap == -depth
    with pytest.raises(InputError, match=f"{trunk} has {depth} feature layers"):
        make_params({"trunk": trunk, "tap": -depth - 1})


def test_the_first_of_several_faults_is_named_and_the_others_are_counted():
    with pytest.raises(InputError, match=r"epochs = -1 .* \(and 2 more\)$"):
        make_params({"lr": "fast", "epochs": -1, "seeds": 3})


def test_replaced_parameters_are_validated_again_and_the_others_kept():
    params = make_params({"epochs": 7, "head": [16, 8]})
    changed = params.replace(seed=3)
    assert changed.model_dump() == params.model_dump() | {"seed": 3}
    with pytest.raises(InputError, match="use each name once"):
        params.replace(representations=["cqt", "cqt"])
    with pytest.raises(InputError, match="did you mean 'seed'"):
        params.replace(sed=3)


# One grammar

WRONG = (
    # the wrong key first, then what it does not go with
    {"epochs": "ten"},
    {"epochs": 1.5},
    {"lr": "1e-3"},
    {"lr": 0},
    {"lr": math.nan},
    {"val_fraction": 1.0},
    {"width": 3.0},
    {"batch_size": 1},
    {"drop_leaked": "yes"},
    {"device": 0},
    {"head": 1280},
    {"head": [1280, "many"]},
    {"dataset": "esc50"},
    {"data_status": "real", "dataset": "urbansound8k"},
    {"data_root": "clips"},
    {"sample_rate": 4000},
    {"duration": 0.1},
    {"fold": 6},
    {"train_folds": [2, 9]},
    {"train_folds": []},
    {"validation": "none", "judged_on": "validation"},
    {"representations": "logmel"},
    {"representations": ["logmel", "mfcc"]},
    {"representations": ["cqt", "cqt"]},
    {"branch": "cqt"},
    {"trunk": "resnet18"},
    {"width": 0.25, "trunk": "shufflenet_v2"},
    {"width": 0.5, "weights": "imagenet"},
    {"tap": -20},
    {"micro_batch": 128},
    {"shortcuts": "al"},
    {"shortcuts": ["fast"]},
    {"augmentation": 3},
    {"kd_loss": "l1"},
    {"epoch": 3},
    {"qqqq": 3},
    {"precision": "bfloat16"},
    {"gammatone_method": "filterbank"},
)
FOREIGN = ("Input", "should", "valid ", "validation error", "tuple", "integer", "boolean", "string")
ANYTHING = (None, True, -1, 10**12, 1.5, math.inf, "no such word", "", [], ["no"], [None])
ANYTHING += ({}, b"bytes", date(2020, 1, 1))


def assert_grammar(sentence: str, key: str, value: object) -> None:
    """Assert that a message is: source, key and value, then what is allowed or the way out."""
    source, fault, way_out = sentence.split(": ", 2)
    assert source == "run.yaml"
    if key in Params.model_fields:
        assert fault.startswith(f"{key} = ")
        assert fault.endswith(" is not allowed")
        told = fault.removeprefix(f"{key} = ").removesuffix(" is not allowed")
        assert told in repr(value)  # the value, or the item of it that is wrong
    else:
        assert f"'{key}'" in fault
    asks = r"(use|leave|write|did you mean) "
    states = r".* (has folds|has \d+ feature layers,|comes in|exist for|is synthesised from) "
    assert re.match(f"{asks}|{states}", way_out)
    assert not re.search(r"[.!]$|[.!?] |\n", sentence)
    assert not [word for word in FOREIGN if word in sentence.replace(repr(value), "")]


@pytest.mark.parametrize("values", WRONG, ids=str)
def test_every_message_is_one_sentence_of_one_grammar(values):
    with pytest.raises(InputError) as caught:
        make_params(values, source="run.yaml")
    assert_grammar(str(caught.value), *next(iter(values.items())))


@pytest.mark.parametrize("key", Params.model_fields)
def test_whatever_is_written_for_a_key_is_taken_or_refused_in_that_grammar(key):
    refused = []
    for value in ANYTHING:
        try:
            make_params({key: value}, source="run.yaml")
        except InputError as error:
            refused.append(str(error))
            assert_grammar(refused[-1], key, value)
    assert refused


@pytest.mark.parametrize("value", ["x" * 10**6, ["x"] * 10**6])
def test_a_long_value_is_cut(value):
    with pytest.raises(InputError, match=r"dataset = .*\.\.\..* is not allowed") as caught:
        make_params({"dataset": value})
    assert len(str(caught.value)) < 300


# Shortcuts


@pytest.mark.parametrize(
    ("key", "value", "written"),
    [
        ("precision", "bfloat16", "bfloat16"),
        ("channels_last", True, "channels_last"),
        ("fast_layers", "auto", "fast_layers"),
        ("store_dtype", "float16", "float16_store"),
        ("fused_optimizer", True, "fused_optimizer"),
        ("reuse_memory", True, "reuse_memory"),
        ("store_on_device", False, "store_on_device"),
    ],
)
def test_an_old_key_is_refused_with_the_new_spelling(key, value, written):
    with pytest.raises(InputError) as caught:
        make_params({key: value})
    fault = f"parameters: '{key}' is a key of an earlier version: write "
    assert str(caught.value) == f"{fault}shortcuts: [{written}], or leave it out"
    assert make_params({"shortcuts": [written]}).shortcuts == (written,)


def test_a_key_that_is_gone_is_refused_with_the_reason():
    with pytest.raises(
        InputError, match="'gammatone_method' is a key of an earlier version: leave"
    ):
        make_params({"gammatone_method": "filterbank"})


def test_shortcuts_and_augmentation_are_none_one_or_a_list_whose_order_is_no_matter():
    for key, first, second in (
        ("shortcuts", "bfloat16", "reuse_memory"),
        ("augmentation", "crop", "mixup"),
    ):
        written = ["none", [], first, [first], [second, first], [first, second, first]]
        found = [getattr(make_params({key: value}), key) for value in written]
        assert found == [(), (), (first,), (first,), (first, second), (first, second)]
    assert make_params({"shortcuts": "all"}).shortcuts == "all"


def test_training_folds_are_a_set():
    assert make_params({"train_folds": [4, 2, 4]}).train_folds == (2, 4)


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_all_shortcuts_are_those_of_the_machine_before_a_run_gets_its_name(
    tiny, monkeypatch, has_bfloat16
):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bfloat16)
    monkeypatch.setattr(speed, "can_compile", lambda: False)
    names = ["bfloat16"] * has_bfloat16 + ["channels_last", "fused_optimizer", "reuse_memory"]
    everything, named = tiny(shortcuts="all"), tiny(shortcuts=names)
    assert settle(everything).shortcuts == tuple(names)
    for branch in ("logmel", None):
        assert run_name(everything, branch=branch) == run_name(named, branch=branch)


def test_what_can_change_a_number_changes_a_runs_name_and_nothing_else_does(tiny):
    plain = run_name(tiny(), branch="logmel")
    names = {name: run_name(tiny(shortcuts=[name]), branch="logmel") for name in SHORTCUTS}
    without_trace = {name for name, told in names.items() if told == plain}
    assert without_trace == {"reuse_memory", "store_on_device"}
    traced = [told for told in names.values() if told != plain]
    assert len(set(traced)) == len(traced)
    both = tiny(shortcuts=["reuse_memory", "bfloat16"])
    assert run_name(both, branch="logmel") == names["bfloat16"]


# Files


def test_a_file_is_one_run_with_the_papers_defaults(tmp_path):
    (params,) = load_params(write(tmp_path, "lr: 0.02\nhead: [16, 8]\nrepresentations: [cqt]\n"))
    expected = Params().model_dump() | {"lr": 0.02, "head": (16, 8), "representations": ("cqt",)}
    assert params.model_dump() == expected


@pytest.mark.parametrize("number", ["1e-3", "1E5", "5e3"])
def test_a_number_that_yaml_reads_as_text_is_refused_with_the_reason(tmp_path, number):
    path = write(tmp_path, f"lr: {number}\n")
    with pytest.raises(InputError, match=r"run\.yaml: lr = .* write 1\.0e-3"):
        load_params(path)


def test_a_quoted_number_gets_no_hint_about_exponents(tmp_path):
    with pytest.raises(InputError, match=r"use a whole number$"):
        load_params(write(tmp_path, "epochs: '16'\n"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "holds no parameters"),
        ("- lr\n- 3\n", "holds no parameters"),
        ("lr\n", "holds no parameters"),
        ("seed: 1\nlr: [0.1\n", "is not YAML in line 3"),
        ("lr: !!python/object:os.system {}\n", "is not YAML in line 1"),
        ("1: 2\n", "the key 1 is not text"),
        ("{a: 1}: 2\n", "is not YAML"),
    ],
)
def test_what_is_no_mapping_of_keys_is_refused(tmp_path, text, fault):
    with pytest.raises(InputError, match=rf"run\.yaml: {fault}"):
        load_params(write(tmp_path, text))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml: does not exist"):
        load_params(tmp_path / "none.yaml")
    with pytest.raises(InputError, match=r"cannot be opened \(Is a directory\)"):
        load_params(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"data_root: caf\xe9\n")
    with pytest.raises(InputError, match=r"latin\.yaml: is not YAML"):
        load_params(tmp_path / "latin.yaml")


@pytest.mark.parametrize("path", PARAMETER_FILES, ids=lambda path: path.stem)
def test_every_parameter_file_of_the_project_is_valid(path):
    assert load_params(path)


# The grid


def test_a_grid_is_every_combination_of_its_values(tmp_path):
    text = "epochs: 3\ngrid:\n  seed: [0, 1, 2]\n  representations: [[logmel, cqt], [cqt]]\n"
    runs = load_params(write(tmp_path, text))
    found = {(run.seed, run.representations, run.epochs) for run in runs}
    pairs = (("logmel", "cqt"), ("cqt",))
    assert found == {(*cell, 3) for cell in itertools.product((0, 1, 2), pairs)}
    assert len(runs) == 6


@pytest.mark.parametrize(
    ("grid", "fault"),
    [
        ("lr: 0.1\ngrid: {lr: [0.1, 0.2]}", "'lr' stands both alone and in the grid: keep one"),
        ("grid: {seed: 3}", "must give a list of values for each key"),
        ("grid: {seed: []}", "must give a list of values"),
        ("grid: [seed]", "must give a list of values"),
        ("grid:", "grid = None must give"),
        ("grid: {seeds: [0, 1]}", "unknown key 'seeds': did you mean 'seed'"),
        ("grid: {fold: [1, 6]}", "fold = 6 is not allowed: urban_synth has folds 1 to 5"),
    ],
)
def test_a_grid_that_is_none_is_refused(tmp_path, grid, fault):
    with pytest.raises(InputError, match=rf"run\.yaml: .*{fault}"):
        load_params(write(tmp_path, grid))


# Notebooks


def chapter(name: str) -> nbformat.NotebookNode:
    return load_notebook_node(jupytext.read(ROOT / "book" / f"{name}.py"))


def parameters_cell(notebook: nbformat.NotebookNode) -> dict[str, object]:
    """Run the cell that papermill writes its values below."""
    namespace: dict[str, object] = {}
    exec(notebook.cells[find_first_tagged_cell_index(notebook, "parameters")].source, namespace)
    return {key: value for key, value in namespace.items() if key != "__builtins__"}


def as_papermill_would(**parameters: object) -> dict[str, object]:
    """Return the globals of a chapter whose first cells ran, with papermill's values injected."""
    notebook = parameterize_notebook(chapter(CHAPTERS[0]), parameters)
    tags = {"parameters", "injected-parameters"}
    cells = [cell.source for cell in notebook.cells if tags & set(cell.metadata.tags)]
    assert len(cells) == 2
    namespace: dict[str, object] = {"In": ["", *cells], "Out": {}, "print": print}
    for cell in cells:
        exec(cell, namespace)
    return namespace


def test_a_notebooks_other_variables_are_no_parameters():
    namespace = as_papermill_would(seed=4, representations=["cqt"])
    namespace |= {"epoch": 3, "results": [1.0], "learning_rate": 0.1}
    params = notebook_params(namespace)
    written = parameters_cell(chapter(CHAPTERS[0]))
    assert params == make_params(written | {"seed": 4, "representations": ["cqt"]})


def test_an_unknown_key_that_papermill_injected_is_refused():
    namespace = as_papermill_would(epoch=3)
    with pytest.raises(InputError, match=r"this notebook: unknown key 'epoch'.* mean 'epochs'"):
        notebook_params(namespace)


def test_a_wrong_value_in_a_notebook_is_refused():
    namespace = as_papermill_would(epochs="three")
    with pytest.raises(InputError, match="this notebook: epochs = 'three' is not allowed"):
        notebook_params(namespace)


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_parameterised_chapter_has_valid_values_of_its_own(name):
    assert make_params(parameters_cell(chapter(name)))


@pytest.mark.parametrize("name", CHAPTERS)
@pytest.mark.parametrize("path", QUICK, ids=lambda path: path.stem)
def test_plain_papermill_knows_every_key_of_the_quick_files(name, path):
    assert set(read_yaml(path)) <= set(parameters_cell(chapter(name)))


def test_chapters_and_the_five_seeds_train_the_same_runs():
    seeds = load_params(ROOT / "params" / "seeds" / "urban_synth.yaml")
    chapters = [
        make_params(parameters_cell(chapter(name))) for name in ("00_the_whole_game", *CHAPTERS)
    ]
    branches = {run_name(params, branch="gammatone") for params in (seeds[0], *chapters)}
    assert len(branches) == 1
    # Chapter 03 has no joint phase.
    assert run_name(seeds[0]) == run_name(chapters[0]) == run_name(chapters[2])


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapters_own_variables_hide_no_parameter(name):
    # Else its parameters could be checked only once: the check reads the notebook's variables.
    notebook = chapter(name)
    own = notebook.cells[find_first_tagged_cell_index(notebook, "parameters") + 1 :]
    statements = [
        statement
        for cell in own
        if cell.cell_type == "code"
        for statement in ast.parse(cell.source).body
    ]
    assigned = {
        target.id
        for statement in statements
        for target in (*getattr(statement, "targets", ()), getattr(statement, "target", None))
        if isinstance(target, ast.Name)
    }
    assert "params" in assigned
    assert assigned & set(Params.model_fields) == set()
