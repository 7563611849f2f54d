"""What all notebooks' parameter models share: strict types, no unknown names, one-line errors."""

import difflib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from paperlib import paths
from paperlib.errors import InputError


def read_yaml(path: Path) -> Any:
    """Contents of a YAML file, by the safe loader; InputError names the file and line that cannot be read."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else ""
        raise InputError(f"{path.name}{line}: not valid YAML ({getattr(error, 'problem', error)})") from None


@cache
def _names(file: str) -> tuple[str, ...]:
    return tuple(read_yaml(paths.PARAMETERS / file))


def _known(kind: str, names: tuple[str, ...], value: str) -> str:
    if value not in names:
        raise ValueError(f"unknown {kind} {value!r}{suggestion(value, names)}; known: {', '.join(names)}")
    return value


def suggestion(value: str, names) -> str:
    """``" (did you mean 'x'?)"`` if a known name is close, else nothing."""
    close = difflib.get_close_matches(str(value), list(names), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def known_task(value: str) -> str:
    """``value``, if it is a task; ValueError lists the known ones."""
    return _known("task", _names("tasks.yaml"), value)


def _known_backbone(value: str) -> str:
    names = _names("backbones.yaml")
    looks_like_hub_id = value.count("/") == 1 and not value.startswith((".", "/", "~"))
    if value in names:
        return value
    if Path(value).expanduser().is_dir() or looks_like_hub_id:
        return _folder(value)
    raise ValueError(
        f"unknown backbone {value!r}{suggestion(value, names)}; give one of {', '.join(names)}, "
        "a folder with config.json and model.safetensors, or a hub id like org/name"
    )


def _folder(value: str) -> str:
    """A folder's absolute path, so that it means the same to the kernel, which works elsewhere; anything else as it is."""
    path = Path(value).expanduser()
    return str(path.resolve()) if value and path.is_dir() else value


TaskName = Annotated[str, AfterValidator(known_task)]
Backbone = Annotated[str, AfterValidator(_known_backbone)]
Folder = Annotated[str, AfterValidator(_folder)]
Source = Literal["hub", "directory", "diagnostics"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Precision = Literal["auto", "bf16", "fp32"]


class Parameters(BaseModel):
    """Base of every notebook's model: unknown names and mistyped values are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class DataParameters(Parameters):
    """Where rows come from and which model reads them."""

    source: Source
    data_dir: Folder
    backbone: Backbone

    @model_validator(mode="after")
    def _folder_for_directory_source(self):
        if self.source == "directory":
            if not self.data_dir:
                raise ValueError("source 'directory' needs data_dir: the folder that holds glue/, superglue/, nli/")
            if not Path(self.data_dir).is_dir():
                raise ValueError(f"data_dir {self.data_dir!r} is not a folder; give the one that holds glue/")
        return self


def validated(model: type[Parameters], notebook: str, values: dict[str, Any]) -> Parameters:
    """``values`` as a ``model``, every mistake told in one InputError line that names the notebook or file and the key."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = (_one_line(problem, model) for problem in error.errors(include_url=False))
        raise InputError(f"{notebook}: {'; '.join(problems)}") from None


def _one_line(problem: dict, model: type[Parameters]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = model.model_fields
        # Deeper in a file other names are known than at its top.
        hint = f"{suggestion(key, known)}; known: {', '.join(known)}" if len(problem["loc"]) == 1 else "; remove it"
        return f"unknown parameter {key!r}{hint}"
    message = problem["msg"].removeprefix("Value error, ")
    if not key or message.startswith("unknown"):
        return message
    if problem["type"] == "missing":
        return f"{key}: a value is needed"
    return f"{key}: {message[0].lower()}{message[1:]} (got {problem['input']!r})"
