"""Trained delta modules out of a supernet and back: one small file for every type, peft's format for LoRA, and merging into the weights."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from paperlib.errors import InputError
from paperlib.s3delta.deltas import ALPHA
from paperlib.s3delta.positions import LINEARS, places
from paperlib.s3delta.structure import Structure
from paperlib.s3delta.supernet import Supernet

WEIGHTS = "deltas.safetensors"
HEAD = "head:"

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PEFT_ROOT = "base_model.model."


def save(folder: Path, structure: Structure, supernet: Supernet) -> None:
    """Write ``structure.json`` and ``deltas.safetensors``: every delta parameter as ``<position>.<parameter>``, the head's as ``head:<name>``."""
    structure.save(folder)
    deltas = zip(supernet.names, supernet.deltas, strict=True)
    tensors = {f"{name}.{key}": p for name, delta in deltas for key, p in delta.named_parameters()}
    tensors |= {HEAD + name: parameter for name, parameter in supernet.head.items()}
    _write(folder / WEIGHTS, tensors)


def load(folder: Path, model: nn.Module, backbone: str) -> tuple[Structure, Supernet]:
    """What :func:`save` wrote, put into the backbone ``model``. InputError: files absent, broken, or for another backbone or head."""
    structure = Structure.load(folder, backbone)
    supernet = Supernet(model, structure.positions(model))
    fitting = {HEAD + name: parameter for name, parameter in supernet.head.items()}
    for name, delta in zip(supernet.names, supernet.deltas, strict=True):
        fitting |= {f"{name}.{key}": parameter for key, parameter in delta.named_parameters()}
    with _removed_on_error(supernet):
        _fill(fitting, _read(folder / WEIGHTS), folder / WEIGHTS)
    return structure, supernet


def save_peft(folder: Path, supernet: Supernet, backbone: str) -> None:
    """Write the LoRA modules, and the task head where there is one, as a checkpoint of the library peft.

    Targets are full module names; ranks that differ from the commonest stand in ``rank_pattern``. InputError: no LoRA module.
    """
    loras = {p.path: d for p, d in zip(supernet.positions, supernet.deltas, strict=True) if p.type == "lora"}
    if not loras:
        raise InputError("the structure has no LoRA module: there is nothing that peft's LoRA format could hold")
    ranks = {path: delta.A.shape[0] for path, delta in loras.items()}
    rank = Counter(ranks.values()).most_common(1)[0][0]
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": backbone,
        "r": rank,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted(loras),
        "rank_pattern": {path: each for path, each in sorted(ranks.items()) if each != rank},
        "alpha_pattern": {},
        "modules_to_save": sorted({name.partition(".")[0] for name in supernet.head}) or None,
    }
    tensors = {f"{PEFT_ROOT}{path}.lora_{part}.weight": getattr(d, part) for path, d in loras.items() for part in "AB"}
    tensors |= {PEFT_ROOT + name: parameter for name, parameter in supernet.head.items()}
    _write(folder / PEFT_WEIGHTS, tensors)
    (folder / PEFT_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_peft(folder: Path, model: nn.Module) -> Supernet:
    """A LoRA checkpoint of the library peft as a supernet of ``model``, its head included where the checkpoint has it.

    InputError: files absent or broken, another kind of adapter than plain LoRA, modules that are no candidate positions, shapes that do not fit.
    """
    alpha = _peft_alpha(folder / PEFT_CONFIG)
    tensors = {name.removeprefix(PEFT_ROOT): tensor for name, tensor in _read(folder / PEFT_WEIGHTS).items()}
    ranks = {
        name.removesuffix(".lora_A.weight"): len(t) for name, t in tensors.items() if name.endswith(".lora_A.weight")
    }
    known = {place.path: place for place in places(model) if place.role in LINEARS}
    unknown = sorted(set(ranks) - set(known))
    if unknown or not ranks:
        raise InputError(
            f"{folder}: no LoRA module, or modules that are no candidate positions of this model: {unknown[:3]}"
        )
    supernet = Supernet(model, [known[path].position("lora", rank) for path, rank in ranks.items()])
    fitting = {name: parameter for name, parameter in supernet.head.items() if name in tensors}
    for position, delta in zip(supernet.positions, supernet.deltas, strict=True):
        fitting |= {f"{position.path}.lora_{part}.weight": getattr(delta, part) for part in "AB"}
    with _removed_on_error(supernet):
        _fill(fitting, tensors, folder / PEFT_WEIGHTS)
    with torch.no_grad():
        for delta in supernet.deltas:
            # Their alpha may be another; the product alpha B is what counts.
            delta.B *= alpha / ALPHA
    return supernet


@torch.no_grad()
def merge(supernet: Supernet) -> Supernet | None:
    """Add every delta that its host's own weights can hold to them and take it out; a supernet of those that remain, or None.

    LoRA and LNFiT always go; BitFit where the host has a bias (T5's have none) and no adapter is to read the output without it; adapters never.
    """
    model, remaining = supernet.model, []
    read = {position.path for position in supernet.positions if position.type in ("lra", "adapter")}
    for position, delta in zip(supernet.positions, supernet.deltas, strict=True):
        held = position.type == "bitfit" and position.path in read
        if held or not delta.merge(model.get_submodule(position.path)):
            remaining.append((position, delta))
    supernet.remove()
    if not remaining:
        return None
    rest = Supernet(model, [position for position, _ in remaining])
    for fresh, (_, trained) in zip(rest.deltas, remaining, strict=True):
        fresh.load_state_dict(trained.state_dict())
    return rest


def _peft_alpha(path: Path) -> float:
    """The alpha of a configuration of plain LoRA. InputError for anything else."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind, alpha = config["peft_type"], float(config.get("lora_alpha", 8))  # peft's own default
    except OSError:
        raise InputError(f"no adapter configuration {path}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path} is no adapter configuration of peft") from None
    others = [key for key in ("use_dora", "use_rslora", "fan_in_fan_out", "layer_replication") if config.get(key)]
    if kind != "LORA" or others or config.get("bias", "none") != "none" or config.get("alpha_pattern"):
        raise InputError(f"{path}: only plain LoRA with one alpha and without biases can be read, not {kind} {others}")
    return alpha


def _write(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, part, metadata={"format": "pt"})
    part.replace(path)


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except OSError:
        raise InputError(f"no file of delta weights {path}") from None
    except SafetensorError as error:
        raise InputError(f"{path} is no safetensors file: {error}") from None


@contextmanager
def _removed_on_error(supernet: Supernet) -> Iterator[None]:
    try:
        yield
    except InputError:
        supernet.remove()
        raise


@torch.no_grad()
def _fill(parameters: dict[str, nn.Parameter], tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Copy all of ``tensors`` into the parameters of the same names. InputError unless names and shapes agree."""
    wanted = {name: parameter.shape for name, parameter in parameters.items()}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong:
        raise InputError(
            f"{path} does not fit this model and structure: {len(wrong)} tensors differ, such as {wrong[0]!r}"
        )
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])
