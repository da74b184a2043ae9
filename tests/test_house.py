"""The house: short functions, imports that go one way, a map that is true, a library that is thin.

Lines of code are counted without docstrings, comments and blank lines.
"""

import ast
import graphlib
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "fusionkd_lib"
# The paper and its run, to be read top to bottom in one sitting.
PAPER = {
    *("representations", "filters", "trunks", "models", "losses", "augmentation", "metrics"),
    *("auprc", "params", "audio", "features", "clips", "splits", "batches", "training"),
    *("runs", "experiment", "tables"),
}
MOST_OF_A_FUNCTION, MOST_OF_THE_PAPER, MOST_OF_THE_LIBRARY = 40, 2000, 4200
# What came after the library was put in order, in all and in the modules of the paper: networks
# that learn (another trunk, baselines, the recipe); trust (the one reader of what others wrote,
# what a person sees, the last net); export (one ONNX file that runs without this project, for a
# fusion run with the scores of every head, in 32, 16 or 8 bits); a folder of one's own sounds as a
# dataset; strangers' ONNX files, walked before they are run, and the ends of a download; a time
# line of tags, as a table and as labels; gradients of 5 x 5 kernels in windows of 3 x 3 taps.
ADDED, ADDED_TO_THE_PAPER = 913, 95
NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    """Return ``datasets/clips`` of a module, ``datasets`` of a package."""
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    return "/".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {name_of(path): path.read_text() for path in sorted(LIBRARY.rglob("*.py"))}
MODULES = SOURCES.keys() - {""}


# Lines


def code_lines(source: str) -> set[int]:
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in (*NO_CODE, tokenize.ENDMARKER):
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | FUNCTIONS) and ast.get_docstring(node):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def lines_by_function(source: str) -> list[tuple[str, int]]:
    lines = code_lines(source)
    return [
        (node.name, len(lines & set(range(node.lineno, node.end_lineno + 1))))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, FUNCTIONS)
    ]


EXAMPLE = '''"""Module."""

# why
def f(x):
    """Say.

    More.
    """
    return (
        x
    )
'''


def test_docstrings_comments_and_blank_lines_are_no_code():
    assert code_lines(EXAMPLE) == {4, 9, 10, 11}
    assert lines_by_function(EXAMPLE) == [("f", 4)]


def test_no_function_is_longer_than_a_screen():
    long = [
        f"{module}.{function}: {n_lines}"
        for module, source in SOURCES.items()
        for function, n_lines in lines_by_function(source)
        if n_lines > MOST_OF_A_FUNCTION
    ]
    assert long == []


def test_the_paper_and_its_run_are_read_in_one_sitting():
    places = {module: PAPER & set(module.split("/")) for module in MODULES}
    assert set.union(*places.values()) == PAPER  # a module that is renamed still counts
    counts = {module: len(code_lines(SOURCES[module])) for module in MODULES if places[module]}
    assert sum(counts.values()) <= MOST_OF_THE_PAPER + ADDED_TO_THE_PAPER, counts


def test_the_library_is_thin():
    counts = {module: len(code_lines(source)) for module, source in SOURCES.items()}
    assert sum(counts.values()) <= MOST_OF_THE_LIBRARY + ADDED, counts


# Imports


def imports(source: str) -> set[str]:
    """Return the modules of ours that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                of_the_package = as_place(module) not in MODULES
                found.add(node.module if of_the_package else module)
    return {as_place(name) for name in found} & MODULES


def as_place(name: str) -> str:
    return name.removeprefix("fusionkd_lib.").replace(".", "/") if "fusionkd_lib." in name else ""


IMPORTS = {module: imports(SOURCES[module]) for module in MODULES}


def test_an_import_is_of_a_module_or_of_a_package_that_hands_it_on():
    source = "import torch\nfrom fusionkd_lib import runs\nfrom fusionkd_lib.losses import ramp\n"
    assert imports(source) == {"losses", "runs"}
    source = "def f():\n    from fusionkd_lib.datasets import Clips, clips\n"
    assert imports(source) == {"datasets", "datasets/clips"}


def test_imports_go_one_way():
    graphlib.TopologicalSorter(IMPORTS).prepare()  # a circle is a CycleError that names it


# The map: a table in CONTRIBUTING.md. A name may be short (`clips` for `datasets/clips`) or a whole
# package (`datasets/*`). `errors`, which almost all import, may be left out, and so may remarks in
# brackets; what imports "all" is not checked.


def is_named(module: str, name: str) -> bool:
    return f"/{module}".endswith(f"/{name}")


def is_held(module: str, name: str) -> bool:
    return is_named(module, name) or module.startswith(f"{name}/")


def names_in(cell: str) -> list[str]:
    return [name.rstrip("/*") for name in re.findall(r"[a-z_0-9/*]+", cell)]


def the_map() -> list[tuple[list[str], list[str]]]:
    """Return the names of modules and of imports of each row."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (table,) = re.findall(r"^\| module \|.* imports of ours \|\n\|[-|]+\n((?:\|.*\n)+)", text, re.M)
    rows = [line.strip("|").split("|") for line in table.splitlines()]
    return [(names_in(row[0]), names_in(re.sub(r"\(.*?\)", "", row[-1]))) for row in rows]


def modules_of(names: list[str]) -> set[str]:
    """Return the modules of a row: those it names, and what no other row names of its packages."""
    named = {m for m in MODULES for names, _ in the_map() for name in names if is_named(m, name)}
    held = {module for module in MODULES for name in names if is_held(module, name)}
    return {m for m in held if m not in named or any(is_named(m, name) for name in names)}


def test_every_module_stands_in_the_map_once_and_nothing_else_does():
    places = [module for names, _ in the_map() for module in modules_of(names)]
    assert sorted(places) == sorted(MODULES)
    names = [name for names, _ in the_map() for name in names]
    assert [name for name in names if not any(is_held(module, name) for module in MODULES)] == []


@pytest.mark.parametrize(("names", "told"), the_map(), ids=lambda names: "+".join(names))
def test_the_map_tells_what_a_module_imports(names, told):
    modules = modules_of(names)
    imported = {target for module in modules for target in IMPORTS[module]} - modules - {"errors"}
    if "all" not in told:
        told = [name for name in told if name != "errors"]
        assert {m for m in imported if not any(is_held(m, name) for name in told)} == set()
        assert {name for name in told if not any(is_held(m, name) for m in imported)} == set()
