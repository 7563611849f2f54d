"""pyproject.toml, constraints.txt and environment.yml install the same."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from paperlib.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIRED = [Requirement(line) for line in PROJECT["dependencies"]]
TEST = [Requirement(line) for line in PROJECT["optional-dependencies"]["test"]]


def pins() -> list[tuple[str, str]]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line and not line.startswith("#")]
    return [re.fullmatch(r"([\w.-]+)==([\w.!+]+)", line).groups() for line in kept]


PINS = {canonicalize_name(name): version for name, version in pins()}


@pytest.mark.parametrize("requirement", REQUIRED + TEST, ids=lambda r: r.name)
def test_every_dependency_is_pinned_to_a_version_it_allows(requirement):
    assert PINS[canonicalize_name(requirement.name)] in requirement.specifier


def test_each_package_is_pinned_once():
    assert len(PINS) == len(pins())


def test_no_dependency_is_asked_for_twice():
    names = [canonicalize_name(r.name) for r in REQUIRED + TEST]
    assert len(names) == len(set(names))


def test_torch_is_pinned_where_issue_and_code_agree():
    torch = next(r for r in REQUIRED if r.name == "torch")
    assert PINS["torch"] == "2.13.0"
    assert "2.11.0" in torch.specifier and "2.10.0" not in torch.specifier


def test_transformers_5_is_the_oldest_allowed():
    transformers = next(r for r in REQUIRED if r.name == "transformers")
    assert "5.0.0" in transformers.specifier and "4.57.0" not in transformers.specifier


def test_conda_installs_the_same_through_the_same_constraints():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["--constraint constraints.txt", "--editable .[test]"]
    others = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    assert {re.split("[=<>]", entry)[0] for entry in others} == {"python", "make", "pip"}, (
        "versions come from pip alone"
    )


def test_conda_and_make_ask_for_the_python_the_project_asks_for():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python = next(entry for entry in environment["dependencies"] if str(entry).startswith("python"))
    lowest = re.search(r"\d+\.\d+", PROJECT["requires-python"]).group()
    assert PROJECT["requires-python"] == f">={lowest}"
    assert re.search(r"\d+\.\d+", python).group() in SpecifierSet(PROJECT["requires-python"])
    assert f"sys.version_info >= ({lowest.replace('.', ', ')})" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_make_installs_through_the_constraints():
    installs = [line for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines() if "pip install" in line]
    assert len(installs) == 2 and all("-c constraints.txt" in line for line in installs)
    assert any("-e ." in line for line in installs) and any("'.[test]'" in line for line in installs)
