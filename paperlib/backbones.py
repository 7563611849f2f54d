"""Backbones: the pre-trained model under a run, with its tokenizer.

A name of ``parameters/backbones.yaml``, a local folder, or a hub id; weights in safetensors only, never remote code.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import yaml

from paperlib import paths
from paperlib.errors import InputError
from paperlib.hub import cache_alone_if_unreachable

DROPOUT_KEYS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "dropout_rate",
    "classifier_dropout",
    "pooler_dropout",
)
# Of minilm's tokenizer, which reads for random backbones: [PAD], [CLS] and [SEP].
SPECIAL_TOKENS = {"pad_token_id": 0, "bos_token_id": 101, "eos_token_id": 102}
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


@dataclass
class Backbone:
    """A model with its head, on the CPU in fp32, and the tokenizer that reads for it (None: untrained, config only)."""

    name: str
    model: Any
    tokenizer: Any | None

    @property
    def text_to_text(self) -> bool:
        """Whether labels are generated as text (T5) rather than scored by a head."""
        return _generates(self.model.config)


def catalogue() -> dict[str, dict[str, Any]]:
    """The named backbones: ``kind`` (embedded, random or config), ``note``, and where they come from."""
    return yaml.safe_load((paths.PARAMETERS / "backbones.yaml").read_text(encoding="utf-8"))


def load(name: str, outputs: int, seed: int, dropout: float = -1.0) -> Backbone:
    """The backbone ``name`` with a head of ``outputs`` scores (ignored by text-to-text models), fresh unless the weights hold a fitting one.

    ``seed`` draws the head (and all weights of random and config-only backbones); ``dropout`` replaces every dropout probability of
    the configuration unless negative. On a CPU attention is eager: its backward pass is faster there than that of torch's fused one.
    InputError: unknown name, no such folder, weights only in pickle format or of another model, no tokenizer beside them, a hub that cannot
    be reached.
    """
    import torch

    entry = catalogue().get(name)
    # None: torch's fused one, where the architecture has it (DeBERTa has not).
    attention = None if torch.cuda.is_available() else "eager"
    torch.manual_seed(seed)
    if entry and entry["kind"] in ("random", "config"):
        model = _model_class(config := configuration(name)).from_config(
            _adjusted(config, outputs, dropout), attn_implementation=attention
        )
        return Backbone(name, model, _reader(_embedded_folder("minilm"), model) if entry["kind"] == "random" else None)
    place = _embedded_folder(name) if entry else _place(name)
    with _told_in_one_line(name, place):
        model = _pretrained(name, place, _adjusted(_config_of(place), outputs, dropout), attention)
        backbone = Backbone(name, model, _reader(place, model))
    # Without files of its own a tokenizer is made of special tokens alone, and reads every text as unknown.
    if 2 * len(backbone.tokenizer) < model.config.vocab_size:
        raise InputError(f"backbone {name!r}: no tokenizer beside the weights; put one there with save_pretrained")
    return backbone


def stacks(model) -> list:
    """The model's stacks of layers, each a ModuleList from bottom to top: the encoder's, then the decoder's where there is one.

    InputError for a model built otherwise.
    """
    body = model.base_model
    parts = [getattr(body, side) for side in ("encoder", "decoder") if hasattr(body, side)]
    found = [getattr(part, name) for part in parts for name in ("layer", "layers", "block") if hasattr(part, name)]
    if not found:
        raise InputError(f"no stack of layers found in a model of type {model.config.model_type!r}")
    return found


def tokenizer(name: str):
    """The tokenizer of an embedded backbone."""
    return _tokenizer(_embedded_folder(name))


def available(name: str) -> bool:
    """Whether a named backbone can be loaded here."""
    entry = catalogue()[name]
    return entry["kind"] != "embedded" or find_spec(entry["package"]) is not None


def configuration(name: str):
    """The transformers configuration of a random or config-only backbone."""
    from transformers import AutoConfig

    entry = catalogue()[name]
    values = dict(entry["config"])
    if values["model_type"] == "t5":
        values |= {"decoder_start_token_id": 0, "pad_token_id": 0}
    if entry["kind"] == "random":
        values |= SPECIAL_TOKENS
    return AutoConfig.for_model(values.pop("model_type"), **values)


def _generates(config) -> bool:
    return config.model_type in ("t5", "mt5", "umt5")


def _model_class(config):
    from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

    return AutoModelForSeq2SeqLM if _generates(config) else AutoModelForSequenceClassification


def _adjusted(config, outputs: int, dropout: float):
    if not _generates(config):
        config.num_labels = outputs
    if dropout >= 0:
        for key in DROPOUT_KEYS:
            if getattr(config, key, None) is not None:
                setattr(config, key, dropout)
    return config


def _embedded_folder(name: str) -> Path:
    entry = catalogue()[name]
    found = find_spec(entry["package"])
    if found is None:
        raise InputError(f"backbone {name!r} ships in the package {entry['package']}; install it: make setup")
    return Path(found.origin).parent / entry["folder"]


def _place(name: str) -> str | Path:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if name.count("/") == 1 and not name.startswith((".", "/", "~")):
            return name
        raise InputError(f"unknown backbone {name!r}; known: {', '.join(catalogue())}, a local folder, or a hub id")
    if not (folder / "config.json").is_file():
        raise InputError(f"backbone {name!r}: the folder has no config.json; give a folder saved by save_pretrained")
    if not list(folder.glob("*.safetensors")):
        pickled = next((f.name for pattern in PICKLES for f in sorted(folder.glob(pattern))), None)
        held = f"weights only in pickle format ({pickled})" if pickled else "no weights"
        raise InputError(f"backbone {name!r}: {held}; convert them to model.safetensors")
    return folder


@contextmanager
def _told_in_one_line(name: str, place: str | Path) -> Iterator[None]:
    """The many ways in which a folder or the hub fails."""
    from safetensors import SafetensorError

    local = isinstance(place, Path)
    try:
        with nullcontext() if local else cache_alone_if_unreachable():
            yield
    except InputError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        if local:
            raise InputError(f"backbone {name!r}: {str(error).splitlines()[0]}") from None
        if "safetensors" in str(error):
            raise InputError(f"backbone {name!r}: no weights in safetensors; convert them first") from None
        raise InputError(
            f"backbone {name!r}: the hub cannot be reached or has no such model; use a local folder, "
            f"or one of {', '.join(catalogue())}"
        ) from None


def _config_of(place):
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(place, trust_remote_code=False)


def _tokenizer(place):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(place, trust_remote_code=False)


def _reader(place, model):
    """The tokenizer, without token types where the model has none (BART, T5) or one alone (RoBERTa)."""
    tokenizer, types = _tokenizer(place), "token_type_ids"
    takes = types in signature(model.forward).parameters
    if not takes or getattr(model.config, "type_vocab_size", 2) < 2:
        tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != types]
    return tokenizer


def _pretrained(name: str, place, config, attention: str | None):
    import torch
    from transformers.utils import logging

    # The list of freshly drawn head weights is expected here and would bury what matters.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model, found = _model_class(config).from_pretrained(
        place,
        config=config,
        use_safetensors=True,
        trust_remote_code=False,
        attn_implementation=attention,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    drawn = {*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])}
    lost = sorted(key for key in drawn if not _may_be_drawn(key, model))
    if lost:
        raise InputError(
            f"backbone {name!r}: the weights are not of this model; {len(lost)} tensors missing, such as {lost[0]}"
        )
    return model


def _may_be_drawn(key: str, model) -> bool:
    """Whether a tensor belongs to the head or to the pooler, which not every pre-trained model comes with."""
    return not _generates(model.config) and (not key.startswith(f"{model.base_model_prefix}.") or "pooler" in key)
