"""The symmetric divergence against its definition, torch's own, and its gradient in closed form."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.nn import functional

from paperlib.dps.divergence import is_regression, symmetric_kl

NONE = torch.zeros(0)


@st.composite
def pairs(draw):
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=6))
    return [torch.from_numpy(draw(hnp.arrays(np.float64, shape, elements=st.floats(-20, 20)))) for _ in range(2)]


def one_way(log_p, log_q):
    return functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)


@given(pairs())
@settings(deadline=None)
def test_it_is_the_sum_of_both_directions(pair):
    log_p, log_q = (logits.log_softmax(-1) for logits in pair)
    torch.testing.assert_close(symmetric_kl(*pair, NONE), one_way(log_p, log_q) + one_way(log_q, log_p))


@given(pairs())
@settings(deadline=None)
def test_it_is_symmetric_never_negative_and_blind_to_a_shift(pair):
    one, other = pair
    divergence = symmetric_kl(one, other, NONE)
    assert (divergence >= 0).all() and torch.equal(divergence, symmetric_kl(other, one, NONE))
    torch.testing.assert_close(symmetric_kl(one + 7, other - 3, NONE), divergence, atol=1e-12, rtol=1e-9)
    assert not symmetric_kl(one, one, NONE).any()


def test_two_classes_by_hand():
    """p = (0.8, 0.2), q = (0.5, 0.5): 0.3 ln 1.6 - 0.3 ln 0.4 = 0.3 ln 4."""
    logits, others = torch.tensor([[0.8, 0.2]]).log(), torch.tensor([[3.0, 3.0]])
    assert symmetric_kl(logits, others, NONE).item() == pytest.approx(0.3 * np.log(4), rel=1e-6)


@given(pairs())
@settings(deadline=None)
def test_gradients_in_closed_form(pair):
    """dD/da = p * (d - <p, d>) + p - q with d = log p - log q, for the logits a of p; for those of q with the roles exchanged."""
    one, other = (logits.clone().requires_grad_() for logits in pair)
    symmetric_kl(one, other, NONE).sum().backward()

    def closed(mine, its):
        p, d = mine.softmax(-1), mine.log_softmax(-1) - its.log_softmax(-1)
        return p * (d - (p * d).sum(-1, keepdim=True)) + p - its.softmax(-1)

    torch.testing.assert_close(one.grad, closed(*pair), atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(other.grad, closed(*pair[::-1]), atol=1e-12, rtol=1e-9)


def test_of_texts_only_label_tokens_count():
    logits, others = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, 0, -100], [2, -100, -100]])
    token = [
        [symmetric_kl(logits[b, t : t + 1], others[b, t : t + 1], NONE).item() for t in range(3)] for b in range(2)
    ]
    expected = [token[0][0] + token[0][1], token[1][0]]
    assert symmetric_kl(logits, others, labels).tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "kind, text, expected", [("regression", False, True), ("regression", True, False), ("choice", False, False)]
)
def test_a_model_that_writes_its_score_is_no_regression(by_hand, kind, text, expected):
    assert is_regression(by_hand(kind, text_to_text=text)) is expected
