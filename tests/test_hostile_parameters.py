"""Hostile parameter files, and command lines that are none."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hostile import assert_nothing_was_executed, check, holding, refused, sentence_of

from fusionkd_lib.cli import main
from fusionkd_lib.experiment import representations_of
from fusionkd_lib.params import load_params

# Parameter files


def a_billion() -> bytes:
    """Return a list of ten names of lists, each of ten names of lists, nine levels deep."""
    lines = ["x0: &x0 [a]"]
    lines += [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]" for n in range(1, 10)]
    return "\n".join([*lines, "dataset: *x9"]).encode()


UNKNOWN = "unknown key"
PARAMETERS = {
    "no file": (Path.unlink, ("does not exist",)),
    "a folder": (lambda path: path.unlink() or path.mkdir(), ("Is a directory",)),
    "an empty file": (holding(b""), ("holds no parameters", "key: value")),
    "comments alone": (holding(b"# epochs: 3\n"), ("holds no parameters", "key: value")),
    "one word": (holding(b"logmel\n"), ("holds no parameters", "key: value")),
    "a list": (holding(b"- epochs: 3\n"), ("holds no parameters", "key: value")),
    "bytes": (holding(np.random.default_rng(4).bytes(300)), ("is not YAML", "key: value")),
    "a bracket that never closes": (holding(b"head: [1280, 512\n"), ("is not YAML in line",)),
    "a tab for an indent": (holding(b"grid:\n\tfold: [1, 2]\n"), ("is not YAML in line 2",)),
    "a key twice": (holding(b"epochs: 3\nlr: 0.1\nepochs: 9\n"), ("'epochs'", "line 3", "twice")),
    "a key that is a number": (holding(b"1: 2\n"), ("the key 1 is not text", "key: value")),
    "a day in the 13th month": (holding(b"seed: 2020-13-01\n"), ("is not YAML",)),
    "a number of 5,000 digits": (holding(b"seed: " + b"9" * 5000 + b"\n"), ("is not YAML",)),
    "3,000 brackets": (holding(b"seed: " + b"[" * 3000 + b"\n"), ("is not YAML",)),
    "a list of a billion": (holding(a_billion()), ("is not YAML in line 2", "an alias")),
    "a word of a million letters": (
        holding(b"dataset: " + b"x" * 10**6),
        ("has more than 65,536 bytes",),
    ),
    "an object of Python": (
        holding(b"epochs: !!python/object/apply:os.mkdir [executed]\n"),
        ("is not YAML in line 1",),
    ),
    "a typo": (holding(b"epoch: 3\n"), (UNKNOWN, "'epoch'", "did you mean 'epochs'")),
    "another library's key": (holding(b"learning_rate: 1\n"), (UNKNOWN, "did you mean 'lr'")),
    "an old key": (holding(b"precision: bfloat16\n"), ("'precision'", "shortcuts: [bfloat16]")),
    "an old key's method": (
        holding(b"gammatone_method: fft\n"),
        ("'gammatone_method'", "leave it"),
    ),
    "a shortcut of nobody": (
        holding(b"shortcuts: [turbo]\n"),
        ("shortcuts = 'turbo'", "'bfloat16'"),
    ),
    "all in a list": (holding(b"shortcuts: [all]\n"), ("shortcuts = 'all'", "use one of")),
    "no shortcuts": (holding(b"shortcuts:\n"), ("shortcuts = None", "none or a list of names")),
    "an augmentation of nobody": (
        holding(b"augmentation: [mask]\n"),
        ("augmentation = 'mask'", "did you mean 'masks'"),
    ),
    "a training fold that there is not": (
        holding(b"train_folds: [2, 12]\n"),
        ("train_folds = [2, 12]", "folds 1 to 5"),
    ),
    "no training fold": (holding(b"train_folds: []\n"), ("train_folds = []", "1 or more")),
    "judged on validation clips that there are not": (
        holding(b"judged_on: validation\nvalidation: none\n"),
        ("validation = 'none'", "use grouped"),
    ),
    "an average of everything": (holding(b"ema_decay: 1\n"), ("ema_decay = 1", "below 1")),
    "a key of nobody": (holding(b"qqqq: 3\n"), (UNKNOWN, "'qqqq'")),
    "a key of the wrong case": (holding(b"Epochs: 3\n"), (UNKNOWN, "did you mean 'epochs'")),
    "a number in words": (holding(b"epochs: ten\n"), ("epochs = 'ten'", "a whole number")),
    "half an epoch": (holding(b"epochs: 1.5\n"), ("epochs = 1.5", "a whole number")),
    "an epoch of yes": (holding(b"epochs: yes\n"), ("epochs = True", "a whole number")),
    "no value": (holding(b"epochs:\n"), ("epochs = None", "a whole number")),
    "no epochs": (holding(b"epochs: 0\n"), ("epochs = 0", "a number above 0")),
    "a rate that YAML reads as text": (holding(b"lr: 1e-3\n"), ("lr = '1e-3'", "1.0e-3")),
    "a rate of 0": (holding(b"lr: 0\n"), ("lr = 0", "a number above 0")),
    "a rate that is NaN": (holding(b"lr: .nan\n"), ("lr = nan", "finite")),
    "a rate that is infinite": (holding(b"lr: .inf\n"), ("lr = inf", "finite")),
    "a decimal comma": (holding(b"duration: 4,0\n"), ("duration = '4,0'", "a number")),
    "no duration": (holding(b"duration: 0\n"), ("duration = 0", "0.05 or more")),
    "an endless duration": (holding(b"duration: .inf\n"), ("duration = inf", "finite")),
    "clips shorter than a bark": (holding(b"duration: 0.1\n"), ("duration = 0.1", "0.25")),
    "a batch of one": (holding(b"batch_size: 1\n"), ("batch_size = 1", "2 or more")),
    "a negative seed": (holding(b"seed: -1\n"), ("seed = -1", "0 or more")),
    "fold 0": (holding(b"fold: 0\n"), ("fold = 0", "a number above 0")),
    "fold 6 of five": (holding(b"fold: 6\n"), ("fold = 6", "folds 1 to 5")),
    "fold 11 of ten": (holding(b"dataset: urbansound8k\nfold: 11\n"), ("fold = 11", "1 to 10")),
    "fold 2 of one": (holding(b"dataset: sonyc_ust\nfold: 2\n"), ("fold = 2", "folds 1 to 1")),
    "an unknown dataset": (holding(b"dataset: esc50\n"), ("dataset = 'esc50'", "'urban_synth'")),
    "a dataset with a typo": (
        holding(b"dataset: urbansound8\n"),
        ("dataset = 'urbansound8'", "did you mean 'urbansound8k'"),
    ),
    "a root for clips that are made": (holding(b"data_root: /x\n"), ("synthesised", "data_root")),
    "an unknown representation": (
        holding(b"representations: [mfcc, cqt]\n"),
        ("representations = 'mfcc'", "'logmel'"),
    ),
    "one representation, no list": (
        holding(b"representations: logmel\n"),
        ("representations = 'logmel'", "a list"),
    ),
    "no representation": (holding(b"representations: []\n"), ("representations = []", "1 or more")),
    "a representation twice": (
        holding(b"representations: [cqt, cqt]\n"),
        ("representations = ['cqt', 'cqt']", "each name once"),
    ),
    "a branch of another run": (
        holding(b"representations: [logmel, cqt]\nbranch: gammatone\n"),
        ("branch = 'gammatone'", "use one of logmel, cqt"),
    ),
    "an unknown trunk": (holding(b"trunk: resnet\n"), ("trunk = 'resnet'", "'mobilenet_v2'")),
    "a trunk of another width": (
        holding(b"trunk: shufflenet_v2\nwidth: 0.25\n"),
        ("width = 0.25", "comes in width 0.5 and 1.0"),
    ),
    "pretrained weights of a narrow trunk": (
        holding(b"weights: imagenet\nwidth: 0.5\n"),
        ("width = 0.5", "for width 1.0 alone"),
    ),
    "a head that is no list": (holding(b"head: 8\n"), ("head = 8", "a list")),
    "a head of no neurons": (holding(b"head: [0, 8]\n"), ("head = 0", "a number above 0")),
    "a tap from the front": (holding(b"tap: 3\n"), ("tap = 3", "a number below 0")),
    "a tap beyond the trunk": (holding(b"tap: -99\n"), ("tap = -99", "19 feature layers")),
    "a rate that nothing is made at": (holding(b"sample_rate: 4000\n"), ("sample_rate = 4000",)),
    "a CQT above Nyquist": (
        holding(b"representations: [logmel, cqt]\nsample_rate: 8000\n"),
        ("cqt_bins=84", "Nyquist", "use at most"),
    ),
    "a mel range above Nyquist": (holding(b"fmax: 30000\n"), ("fmax=30000", "Nyquist")),
    "a mel range upside down": (holding(b"fmin: 900\nfmax: 800\n"), ("fmin=900", "fmin < fmax")),
    "an odd transform": (holding(b"n_fft: 1023\n"), ("n_fft=1023", "even")),
    "a grid of one value": (holding(b"grid:\n  fold: 3\n"), ("grid", "a list of values")),
    "a grid of nothing": (holding(b"grid:\n"), ("grid = None", "a list of values")),
    "a grid that is a list": (holding(b"grid: [1, 2]\n"), ("grid = [1, 2]", "a list of values")),
    "a grid with an empty list": (holding(b"grid:\n  fold: []\n"), ("grid", "a list of values")),
    "a grid with a typo": (holding(b"grid:\n  flod: [1]\n"), (UNKNOWN, "did you mean 'fold'")),
    "a grid with an impossible run": (
        holding(b"grid:\n  fold: [1, 9]\n"),
        ("fold = 9", "folds 1 to 5"),
    ),
    "a key alone and in the grid": (
        holding(b"fold: 1\ngrid:\n  fold: [1, 2]\n"),
        ("'fold' stands both alone and in the grid", "keep one"),
    ),
    "a key twice in a list of a list": (
        holding(b"head: [{a: 1, a: 2}]\n"),
        ("'a'", "line 1", "twice"),
    ),
    "a grid with a key twice": (
        holding(b"grid:\n  fold: [1]\n  fold: [2]\n"),
        ("'fold'", "line 3", "twice"),
    ),
}
# What a representation says, which knows of no file: a command puts the file's name before it.
PLANNED = {"a CQT above Nyquist", "a mel range above Nyquist", "a mel range upside down"}
PLANNED |= {"an odd transform"}


def make_file(folder: Path, what: str) -> Path:
    path = folder / "run.yaml"
    path.touch()
    PARAMETERS[what][0](path)
    return path


def use(path: Path) -> None:
    for params in load_params(path):
        representations_of(params)


@pytest.mark.parametrize("what", PARAMETERS)
def test_parameters_that_cannot_be_used(tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    sentence = sentence_of(use, make_file(tmp_path, what))
    check(sentence, *PARAMETERS[what][1])
    assert ("run.yaml" in sentence) == (what not in PLANNED)
    assert_nothing_was_executed(tmp_path)


@pytest.mark.parametrize("what", PARAMETERS)
def test_a_command_says_so_with_the_files_name(tmp_path, what):
    path = make_file(tmp_path, what)
    told, sentence = refused("run", path, "--dry-run"), sentence_of(use, path)
    assert told == (f"{path}: {sentence}" if what in PLANNED else sentence)


# Command lines

USAGE = {
    "no such command": (["tagg"], "No such command 'tagg'"),
    "no such option": (["table", "--jsno"], "No such option"),
    "tag nothing": (["tag", "run"], "Missing argument 'AUDIO...'"),
    "run nothing": (["run"], "Missing argument 'FILES...'"),
    "score no such challenge": (["score", "esc50"], "No such command 'esc50'"),
    "score without predictions": (["score", "sonyc-ust"], "Missing option '--predictions'"),
    "fetch no such dataset": (["data", "fetch", "esc50", "--root", "."], "'esc50' is not one of"),
    "fetch to nowhere": (["data", "fetch", "sonyc-ust"], "give --root, or set FUSIONKD_DATA"),
    "check nothing": (["data", "check"], "Missing argument 'NAME'"),
}


@pytest.mark.parametrize(("arguments", "says"), USAGE.values(), ids=USAGE.keys())
def test_a_command_that_is_not_one(arguments, says):
    answer = CliRunner().invoke(main, arguments)
    assert answer.exit_code == 2
    assert says in answer.stderr
    assert "Usage: " in answer.stderr
