"""Small models that carry delta modules, in double precision and without dropout, and inputs for them."""

import copy
from functools import cache

import pytest
import torch

from paperlib import backbones


@cache
def _model(name, dropout):
    return backbones.load(name, 3, seed=0, dropout=dropout).model


@pytest.fixture
def small_model():
    """``small_model(name)``: a fresh copy of a tiny random backbone with three outputs, evaluating, in float64, without dropout."""

    def make(name, dropout=0.0, dtype=torch.float64):
        return copy.deepcopy(_model(name, dropout)).to(dtype).eval()

    return make


@pytest.fixture(scope="session")
def outputs():
    """``outputs(model, seed)``: logits of a padded batch of three rows, (3, 3) or (3, 4, vocabulary)."""

    def run(model, seed=0):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(200, 30000, (3, 7), generator=generator)
        mask = torch.ones_like(ids)
        mask[1, 4:] = 0
        ids[:, 3] = model.config.eos_token_id  # BART's head reads there
        inputs = {"input_ids": ids, "attention_mask": mask}
        if model.config.model_type == "t5":
            inputs["decoder_input_ids"] = torch.randint(200, 30000, (3, 4), generator=generator)
        return model(**inputs).logits

    return run


@pytest.fixture(scope="session")
def shaken():
    """``shaken(modules)``: every parameter of delta modules moved by N(0, ``by``^2), so that no delta is the zero map."""

    @torch.no_grad()
    def move(modules, seed=1, by=0.3):
        generator = torch.Generator().manual_seed(seed)
        for parameter in modules.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        return modules

    return move


@pytest.fixture
def exact_norms(monkeypatch):
    """T5's norms in the precision of what they are given; as shipped they take their mean square in fp32."""
    from transformers.models.t5.modeling_t5 import T5LayerNorm

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon))

    monkeypatch.setattr(T5LayerNorm, "forward", forward)
