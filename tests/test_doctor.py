"""doctor says what is here, what is not, and what each profile needs."""

from importlib import metadata

import pytest

from paperlib import cli, doctor, hub, plan
from paperlib.parameters import profiles


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(hub, "reachable", lambda endpoint: False)


def test_every_profile_backbone_source_and_package_has_a_line(workspace, offline, capsys):
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for name in profiles.names():
        assert f"profile {name}: " in shown
    for words in ("Python", "torch", "snakemake", "memory", "disk", "device", "precision auto", "backbone minilm"):
        assert words in shown
    assert "source hub             not reachable: use --source directory --data DIR, or diagnostics" in shown
    laptop, wanted = profiles.load("laptop"), plan.Plan("laptop", {})
    counted = f"{len(laptop.sections)} sections, {len(wanted.runs(wanted.sections()))} runs (0 done)"
    assert f"{counted}, about {laptop.minutes:g} minutes" in shown
    assert not (workspace / "results").exists(), "doctor changes nothing"


def test_a_reachable_hub_is_said_to_be(workspace, monkeypatch, capsys):
    monkeypatch.setattr(hub, "reachable", lambda endpoint: True)
    cli.main(["doctor"])
    assert "ok   source hub             reachable" in capsys.readouterr().out


def test_a_missing_package_is_named_with_what_to_do_and_everything_else_is_still_told(
    workspace, offline, monkeypatch, capsys
):
    real = metadata.version

    def version(name):
        if name == "snakemake":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    assert doctor.report() == 1
    shown = capsys.readouterr().out
    assert "MISS snakemake              not installed: make setup" in shown
    assert "memory" in shown and "profile laptop" in shown


def test_too_little_memory_is_a_miss(workspace, offline, monkeypatch, capsys):
    from types import SimpleNamespace

    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: SimpleNamespace(available=2**30, total=2**31))
    assert doctor.report() == 1
    assert "MISS memory                 1.0 of 2.0 GiB free" in capsys.readouterr().out
