"""Packaging: one set of versions, told three times, that any machine can install."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


# What torch's CUDA builds bring along differs from machine to machine, and torch itself pins it.
OF_THE_BUILD = ("nvidia-", "cuda-", "triton")


def normalised(name: str) -> str:
    """Return a package's name as the index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def lines_of_the_lock(name: str = "requirements.lock") -> list[str]:
    lines = (ROOT / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def locked() -> dict[str, str]:
    pairs = [line.split("==") for line in lines_of_the_lock()]
    return {normalised(name): version for name, version in pairs}


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    (listed,) = (
        entry["pip"]
        for entry in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
        if isinstance(entry, dict)
    )
    return {normalised(name): version for name, version in (line.split("==") for line in listed)}


@pytest.fixture(scope="module")
def groups() -> dict[str, list[str]]:
    """Return the requirements of each group; what runs need is ``run``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = {"run": project["dependencies"], **project["optional-dependencies"]}
    return {name: lines for name, lines in found.items() if name != "site"}  # its lock is its own


def needed_by(lines: Iterable[str]) -> set[str]:
    """Return the packages that these requirements bring along, themselves included."""
    todo, seen = [Requirement(line) for line in lines], set()
    while todo:
        requirement = todo.pop()
        key = (normalised(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        for line in metadata.requires(requirement.name) or []:
            needed = Requirement(line)
            if needed.name.startswith(OF_THE_BUILD):
                continue
            extras = {"", *requirement.extras}
            if not needed.marker or any(needed.marker.evaluate({"extra": e}) for e in extras):
                todo.append(needed)
    return {name for name, _ in seen}


def imported_by(folder: str) -> set[str]:
    """Return the packages that a folder of ours imports, the standard library and ours aside."""
    paths = list((ROOT / folder).rglob("*.py"))
    ours = {"fusionkd_lib", "fusionkd_book", "bench", "tests", *(path.stem for path in paths)}
    names = set()
    for node in (node for path in paths for node in ast.walk(ast.parse(path.read_text()))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    installed = metadata.packages_distributions()
    return {normalised(installed[n][0]) for n in names - ours - sys.stdlib_module_names}


def test_the_locks_have_one_exact_version_a_line():
    names = []
    for line in lines_of_the_lock() + lines_of_the_lock("requirements-site.lock"):
        name, version = re.fullmatch(r"([\w.-]+)==([\w.!]+)", line).groups()  # no '+', no address
        names.append(normalised(name))
        assert version[0].isdigit()
    assert len(names) == len(set(names))


def test_what_the_web_book_names_is_in_its_lock():
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    locked = [line.split("==")[0] for line in lines_of_the_lock("requirements-site.lock")]
    assert set(map(normalised, named["site"])) <= set(map(normalised, locked))


def test_what_the_project_names_is_in_the_environment_and_that_is_in_the_lock(
    groups, environment, locked
):
    named = [normalised(Requirement(line).name) for lines in groups.values() for line in lines]
    assert sorted(named) == sorted(environment)  # each in one group
    assert environment.keys() - locked.keys() == set()


def test_the_lock_holds_all_that_its_packages_need(groups, locked):
    # What is installed with --no-deps or from a mirror of the lock alone must be all there is.
    needed = needed_by(line for lines in groups.values() for line in lines)
    assert needed - locked.keys() == set()
    assert len(needed) > 100


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [
        ("fusionkd_lib", ("run", "book", "export")),
        ("book", ("run", "book", "export")),
        ("bench", ("run", "book", "dev", "export")),
        ("tests", ("run", "book", "dev", "export")),
    ],
)
def test_what_a_folder_imports_comes_with_its_groups(groups, folder, allowed):
    imported = imported_by(folder)
    assert imported
    assert imported - needed_by(line for group in allowed for line in groups[group]) == set()


def test_the_environments_versions_are_the_locks(environment, locked):
    assert environment == {name: locked.get(name) for name in environment}


def test_torch_and_torchvision_are_a_pair(locked):
    assert metadata.version("torchvision").split("+")[0] == locked["torchvision"]
    pairs = [Requirement(line) for line in metadata.requires("torchvision")]
    (wanted,) = (requirement for requirement in pairs if requirement.name == "torch")
    assert locked["torch"] in wanted.specifier


def test_the_environments_python_is_one_that_the_project_takes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (python,) = (d for d in dependencies if isinstance(d, str) and d.startswith("python="))
    lowest = re.fullmatch(r">=(\d+)\.(\d+)\.\d+", project["requires-python"]).groups()
    chosen = python.removeprefix("python=").split(".")[:2]
    assert [int(part) for part in chosen] >= [int(part) for part in lowest]
