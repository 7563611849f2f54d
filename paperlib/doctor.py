"""What this machine has, and what each profile needs of it. The one place that looks into both wings."""

import os
import platform
import shutil
from importlib import metadata

import psutil
from huggingface_hub import constants

from paperlib import backbones, hub, measure, paths, plan
from paperlib.parameters import profiles

PACKAGES = ("torch", "transformers", "datasets", "papermill", "snakemake", "jupyterlab", "nbconvert", "scikit-learn")


def report() -> int:
    """Print the findings, a line each; 0 if the default profile can run here, else 1."""
    usable = all([_software(), _space()])
    _device()
    _reach()
    _profiles()
    return 0 if usable else 1


def _line(ok: bool | None, what: str, found: str) -> bool:
    sign = {True: "ok  ", False: "MISS", None: "    "}[ok]
    print(f"{sign} {what:22} {found}")
    return ok is not False


def _software() -> bool:
    python = tuple(map(int, platform.python_version_tuple()[:2]))
    usable = _line(python >= (3, 11), "Python", platform.python_version())
    for package in PACKAGES:
        try:
            _line(True, package, metadata.version(package))
        except metadata.PackageNotFoundError:
            usable = _line(False, package, "not installed: make setup")
    return usable


def _space() -> bool:
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(paths.ROOT)
    enough_memory = _line(
        memory.available > 3 * 2**30, "memory", f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    )
    enough_disk = _line(disk.free > 2 * 2**30, "disk", f"{disk.free / 2**30:.1f} GiB free below the project")
    return enough_memory and enough_disk


def _device() -> None:
    _line(None, "device", f"{measure.device().type}: {measure.device_name()}, {os.cpu_count()} cores")
    _line(None, "precision auto", measure.precision("auto"))


def _reach() -> None:
    online = hub.reachable(constants.ENDPOINT)
    _line(
        online or None,
        "source hub",
        "reachable" if online else "not reachable: use --source directory --data DIR, or diagnostics",
    )
    _line(True, "source diagnostics", "embedded")
    _line(None, "source directory", "give --data DIR with glue/, superglue/, nli/ in their official layouts")
    for name, entry in backbones.catalogue().items():
        _line(backbones.available(name), f"backbone {name}", entry["note"])


def _profiles() -> None:
    for name in profiles.names():
        chosen = profiles.load(name)
        runs = plan.Plan(name, {}).runs(list(chosen.sections))
        done = sum(path.is_file() for path in runs)
        print(f"\nprofile {name}: {chosen.description}")
        print(
            f"     {len(chosen.sections)} sections, {len(runs)} runs ({done} done), about {chosen.minutes:g} minutes; needs {chosen.needs}"
        )
