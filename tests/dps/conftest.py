"""Small models of every family the methods must work on, and a problem simple enough to work out by hand."""

from types import SimpleNamespace

import pytest
import torch

from paperlib.training import Problem

SMALL = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
SIDES = {"layers": 3, "attention_heads": 2, "ffn_dim": 32}
BART = {"vocab_size": 40, "d_model": 16, "scale_embedding": True}
FAMILIES = {
    "bert": SMALL,
    "roberta": SMALL,
    "electra": SMALL | {"embedding_size": 8},
    "deberta-v2": SMALL | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8},
    "bart": BART | {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in SIDES.items()},
    "t5": {"vocab_size": 40, "d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 3, "num_heads": 2}
    | {"decoder_start_token_id": 0, "pad_token_id": 0},
}


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def make_model():
    """``make_model(family)``: a random model of three layers (and three), without dropout, with a head of three classes unless it writes text."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

    from paperlib.backbones import DROPOUT_KEYS

    def make(family):
        config = AutoConfig.for_model(family, **FAMILIES[family])
        for key in DROPOUT_KEYS:
            if getattr(config, key, None) is not None:
                setattr(config, key, 0.0)
        torch.manual_seed(0)
        if family == "t5":
            return AutoModelForSeq2SeqLM.from_config(config).train()
        config.num_labels = 3
        return AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").train()

    return make


class ByHand(torch.nn.Module):
    """Scores of ids, all in double precision: classes from the mean embedding after dropout, or a vocabulary at every place."""

    def __init__(self, outputs, everywhere, dropout):
        super().__init__()
        torch.manual_seed(3)
        self.table = torch.nn.Embedding(11, 5, dtype=torch.float64)
        self.dropout = torch.nn.Dropout(dropout)
        self.head = torch.nn.Linear(5, outputs, dtype=torch.float64)
        self.everywhere = everywhere

    def get_input_embeddings(self):
        return self.table

    def forward(self, input_ids):
        embedded = self.table(input_ids)
        return self.head(self.dropout(embedded if self.everywhere else embedded.mean(1)))


class StubProblem:
    """What a method asks of a problem, on such a model; the loss is the real one."""

    loss = Problem.loss

    def __init__(self, kind, outputs, text_to_text, dropout):
        self.task = SimpleNamespace(kind=kind, title=kind)
        self.backbone = SimpleNamespace(text_to_text=text_to_text)
        self.model = ByHand(outputs, text_to_text, dropout)

    def logits(self, batch):
        scores = self.model(batch["input_ids"])
        return scores if self.backbone.text_to_text else scores.view(len(batch["labels"]), -1)


@pytest.fixture
def by_hand():
    """``by_hand(kind, outputs, text_to_text, dropout)``: a stub problem of five numbers per word, eleven words."""

    def make(kind="classification", outputs=3, text_to_text=False, dropout=0.0):
        return StubProblem(kind, outputs, text_to_text, dropout)

    return make
