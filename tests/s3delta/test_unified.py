"""Equation (22) on real modules: the check passes where it should, and notices what it should notice."""

import pytest
import torch

from paperlib.s3delta import unified
from paperlib.s3delta.positions import ROWS, baseline, candidates
from paperlib.s3delta.supernet import Supernet

NAMES = ["tiny-t5", "tiny-bert", "tiny-bart"]


def of_row(model, row):
    return [position for position in candidates(model, "M") if position.row == row]


@pytest.mark.parametrize("name", NAMES)
def test_every_host_computes_the_formula(small_model, name):
    model = small_model(name)
    found = unified.compositions(model, candidates(model, "M"), seed=0)
    assert max(each.error for each in found) < 1e-13
    assert sum(each.hosts for each in found) == len({position.path for position in candidates(model, "M")})


def test_adapters_compute_it_too(small_model):
    model = small_model("tiny-t5")
    found = unified.compositions(model, baseline(model, "adapter"), seed=0)
    assert [(each.role, each.parallel, each.sequential) for each in found] == [
        ("SelfAttn", None, "Adapter"),
        ("FFN", None, "Adapter"),
    ]
    assert max(each.error for each in found) < 1e-13


def test_sequential_deltas_of_one_host_read_the_same_sum(small_model):
    """In BERT a block ends with its last linear map: BitFit and LRA stand there together."""
    model = small_model("tiny-bert")
    found = {each.role: each for each in unified.compositions(model, candidates(model, "M"), seed=0)}
    both = [each for each in found.values() if each.chained is not None]
    assert {each.role for each in both} == {"O and SelfAttn", "W2 and FFN"}
    assert all(each.sequential == "BitFit, LRA" and each.chained > 1e-5 for each in both)


@pytest.mark.parametrize("field, factor", [("A", 1.01), ("B", 1.01)])
def test_a_delta_with_other_values_is_noticed(small_model, field, factor):
    model = small_model("tiny-bert")
    (position, *_) = of_row(model, "W1 LoRA")
    supernet = unified.drawn(model, [position], seed=0)
    host, delta = model.get_submodule(position.path), supernet.deltas[0]
    x = torch.randn(3, host.in_features, dtype=torch.float64)
    with torch.no_grad():
        expected = unified.composed(host(x) - unified.by_hand(delta, x), x, [(position, delta, 1.0)])
        getattr(delta, field).mul_(factor)
        assert (host(x) - expected).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["tiny-t5", "tiny-bert"])
def test_by_hand_is_what_a_delta_computes(small_model, name):
    model = small_model(name)
    for position in [*candidates(model, "M"), *baseline(model, "adapter")]:
        delta = position.delta(model)
        for parameter in delta.parameters():
            torch.nn.init.normal_(parameter)
        wide = (
            {"W1": 32, "W2": 64}.get(position.role, 32)
            if position.type == "lora"
            else len(list(delta.parameters())[-1])
        )
        x = torch.randn(4, wide, dtype=torch.float64)
        # T5's norm takes its mean square in fp32, and so does the formula; the delta by itself need not.
        close = 1e-6 if (position.type, name) == ("lnfit", "tiny-t5") else 1e-12
        with torch.no_grad():
            theirs = delta(x).expand(4, -1)
            torch.testing.assert_close(unified.by_hand(delta, x), theirs, rtol=close, atol=close)


@pytest.mark.parametrize("name", ["tiny-t5", "tiny-bert"])
def test_every_row_alone_is_nothing_at_0_and_merges_at_1_where_it_can(small_model, name):
    model = small_model(name)
    rows = [row for row in ROWS if of_row(model, row)]
    for row in rows:
        found = unified.alone(model, of_row(model, row), seed=0)
        assert found.unchanged and found.plain < 1e-13, row
        kind = row.rpartition(" ")[2]
        mergeable = kind in ("LoRA", "LNFiT") or (kind == "BitFit" and name == "tiny-bert")
        assert (found.merged is not None) == mergeable, row
        assert found.merged is None or found.merged < 1e-12, row
        assert (found.effect < 1e-12) == (row == "K BitFit"), row


def test_the_model_stays_as_it_is(small_model, outputs):
    model = small_model("tiny-bert")
    before = outputs(model)
    unified.compositions(model, candidates(model, "M"), seed=0)
    unified.alone(model, of_row(model, "Q LoRA"), seed=0)
    assert torch.equal(outputs(model), before)
    assert not any(".delta_" in name for name, _ in model.named_parameters())
    Supernet(model, of_row(model, "Q LoRA"))
