"""Packaging: one set of versions, told three times, that any machine can install."""

import re
import tomllib
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


def lines_of_the_lock() -> list[str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
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
def needed() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {normalised(re.match(r"[\w.-]+", line)[0]) for line in project["dependencies"]}


def test_the_lock_has_one_exact_version_a_line():
    names = []
    for line in lines_of_the_lock():
        name, version = re.fullmatch(r"([\w.-]+)==([\w.!]+)", line).groups()  # no '+', no address
        names.append(normalised(name))
        assert version[0].isdigit()
    assert len(names) == len(set(names))


def test_what_the_project_needs_is_in_the_environment_and_that_is_in_the_lock(
    needed, environment, locked
):
    assert needed - environment.keys() == set()
    assert environment.keys() - locked.keys() == set()


def test_the_lock_holds_all_that_its_packages_need(locked):
    # What is installed with --no-deps or from a mirror of the lock alone must be all there is.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    todo, seen = [Requirement(line) for line in project["dependencies"]], set()
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
    assert {name for name, _ in seen} - locked.keys() == set()
    assert len(seen) > 100


def test_the_environments_versions_are_the_locks(environment, locked):
    assert environment == {name: locked.get(name) for name in environment}


def test_torch_and_torchvision_are_the_pair_that_was_tried(locked):
    assert (locked["torch"], locked["torchvision"]) == ("2.13.0", "0.28.0")


def test_the_environments_python_is_one_that_the_project_takes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (python,) = (d for d in dependencies if isinstance(d, str) and d.startswith("python="))
    lowest = re.fullmatch(r">=(\d+)\.(\d+)\.\d+", project["requires-python"]).groups()
    chosen = python.removeprefix("python=").split(".")[:2]
    assert [int(part) for part in chosen] >= [int(part) for part in lowest]
