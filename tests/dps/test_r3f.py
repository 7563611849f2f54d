"""R3F against values worked out in numpy, and where its noise goes."""

import copy

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax

from paperlib.dps.r3f import R3F, NoisedLookup
from paperlib.errors import InputError
from paperlib.training import Loop, Method

IDS = torch.tensor([[1, 2, 3], [4, 4, 0], [10, 5, 2], [7, 8, 9]])
MIXED, ALIKE = torch.tensor([0, 2, 1, 1]), torch.tensor([1, 1, 1, 1])
TEXTS = torch.tensor([[1, 0, -100], [2, -100, -100], [0, 1, 2], [2, 2, -100]])


def both_ways(scores, others):
    p, q = softmax(scores, -1), softmax(others, -1)
    return (rel_entr(p, q) + rel_entr(q, p)).sum(-1)


def by_numpy(problem, labels, noise, strength):
    """The specification's loss, with the noise given: mean CE + lambda * (1 / B) * sum of both divergences."""
    table, weight, bias = (each.detach().numpy() for each in problem.model.parameters())
    words = table[IDS.numpy()]
    pooled = (lambda x: x) if problem.backbone.text_to_text else (lambda x: x.mean(1))
    clean, noised = (pooled(x) @ weight.T + bias for x in (words, words + noise))
    counted = labels.numpy() != -100
    target = np.where(counted, labels.numpy(), 0)
    entropy = -np.take_along_axis(log_softmax(clean, -1), target[..., None], -1)[..., 0][counted].mean()
    apart = (both_ways(clean, noised) * counted).sum()
    return entropy + strength * apart / len(IDS)


@pytest.mark.parametrize("noise", ["normal", "uniform"])
@pytest.mark.parametrize("labels", [MIXED, ALIKE, TEXTS], ids=["classes", "one class", "texts"])
def test_loss_by_hand(by_hand, noise, labels):
    """One class in the whole batch is no special case: the divergence does not look at labels."""
    problem = by_hand(text_to_text=labels is TEXTS)
    torch.manual_seed(1)
    loss = R3F(noise, 0.3, 2.5).loss(problem, {"input_ids": IDS, "labels": labels})
    torch.manual_seed(1)
    z = torch.zeros(4, 3, 5, dtype=torch.float64)
    z = 0.3 * z.normal_() if noise == "normal" else z.uniform_(-0.3, 0.3)
    assert loss.item() == pytest.approx(by_numpy(problem, labels, z.numpy(), 2.5), rel=1e-12)
    assert loss.item() > by_numpy(problem, labels, z.numpy(), 0) + 1e-3


def gradients(method, problem, batch):
    problem.model.zero_grad()
    torch.manual_seed(1)
    loss = method.loss(problem, batch)
    loss.backward()
    return loss.item(), [parameter.grad.clone() for parameter in problem.model.parameters()]


@pytest.mark.parametrize("method", [R3F("normal", 0.3, 0.0), R3F("uniform", 0.0, 5.0)], ids=["lambda 0", "no noise"])
def test_without_strength_or_noise_it_is_vanilla(by_hand, method):
    problem, batch = by_hand(), {"input_ids": IDS, "labels": MIXED}
    loss, ours = gradients(method, problem, batch)
    expected, plain = gradients(Method(), problem, batch)
    assert loss == expected
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)


def test_both_passes_carry_gradient_and_the_noised_one_does_not_reach_the_table(by_hand):
    """Every gradient against autograd on the two passes written out."""
    problem = by_hand()
    _, ours = gradients(R3F("normal", 0.3, 2.0), problem, {"input_ids": IDS, "labels": MIXED})
    table, weight, bias = (each.detach().clone().requires_grad_() for each in problem.model.parameters())
    torch.manual_seed(1)
    z = 0.3 * torch.randn(4, 3, 5, dtype=torch.float64)
    clean = table[IDS].mean(1) @ weight.T + bias
    noised = (table[IDS].detach() + z).mean(1) @ weight.T + bias
    log_p, log_q = clean.log_softmax(-1), noised.log_softmax(-1)
    apart = (log_p.exp() * (log_p - log_q) + log_q.exp() * (log_q - log_p)).sum()
    (torch.nn.functional.cross_entropy(clean, MIXED) + 2.0 * apart / 4).backward()
    for one, other in zip(ours, (table, weight, bias), strict=True):
        torch.testing.assert_close(one, other.grad, rtol=1e-12, atol=1e-15)


# --- where the noise goes, in every family of models

WORDS = torch.tensor([[5, 9, 31, 17, 22, 2]])  # all different, the end-of-text token that BART wants among them


def inputs(family):
    extra = {"labels": torch.tensor([[7, 8, 9]])} if family == "t5" else {}
    return {"input_ids": WORDS, "attention_mask": torch.ones_like(WORDS)} | extra


def own_encoder_table(model, table):
    """A copy of the model whose encoder alone looks words up in ``table``."""
    model = copy.deepcopy(model)
    encoder = getattr(model.base_model, "encoder", None)
    module = encoder.embed_tokens if hasattr(encoder, "embed_tokens") else model.get_input_embeddings()
    module.weight = torch.nn.Parameter(table)
    return model


def test_only_the_encoders_words_are_noised(make_model, family):
    """As if each word's row of the table were another one for the encoder; logits and all gradients, the decoder's lookups included."""
    model = make_model(family).double()
    table = model.get_input_embeddings().weight
    z = torch.randn(1, 6, table.shape[1], dtype=torch.float64)
    with NoisedLookup(table, WORDS, lambda looked_up: looked_up + z):
        noised = model(**inputs(family)).logits
    changed = table.detach().clone()
    changed[WORDS] += z
    expected = own_encoder_table(model, changed)
    logits = expected(**inputs(family)).logits
    torch.testing.assert_close(noised, logits, rtol=1e-12, atol=1e-14)
    assert (noised - model(**inputs(family)).logits).abs().max() > 1e-6
    for out in (noised, logits):
        out.square().sum().backward()
    for name, parameter in expected.named_parameters():
        if parameter is not encoder_table(expected) and parameter.grad is not None:
            torch.testing.assert_close(model.get_parameter(name).grad, parameter.grad, rtol=1e-9, atol=1e-13)
    if family not in ("bart", "t5"):
        assert table.grad is None or not table.grad.any()


def encoder_table(model):
    encoder = getattr(model.base_model, "encoder", None)
    return (encoder.embed_tokens if hasattr(encoder, "embed_tokens") else model.get_input_embeddings()).weight


def test_noise_that_goes_nowhere_is_an_error(make_model):
    model = make_model("bert")
    with pytest.raises(RuntimeError, match="nothing was noised"):
        with NoisedLookup(model.get_input_embeddings().weight, WORDS, lambda x: x):
            model(input_ids=WORDS.clone())


def test_errors_of_the_model_are_not_hidden(make_model):
    model = make_model("bert")
    with pytest.raises(IndexError):
        with NoisedLookup(model.get_input_embeddings().weight, WORDS, lambda x: x):
            model(input_ids=WORDS + 40)


# --- real problems


@pytest.mark.parametrize(
    "task, backbone", [("rte", "tiny-bert"), ("copa", "tiny-bert"), ("stsb", "tiny-t5"), ("rte", "tiny-t5")]
)
def test_small_noise_costs_nothing_and_large_noise_much(make_problem, task, backbone):
    problem = make_problem(task, backbone, dropout=0.0)
    batch = problem.batch(problem.train, np.arange(6))
    vanilla = Method().loss(problem, batch).item()
    assert R3F("uniform", 1e-5, 1.0).loss(problem, batch).item() == pytest.approx(vanilla, rel=1e-5)
    assert R3F("normal", 1.0, 100.0).loss(problem, batch).item() > vanilla * 1.001


def test_dropout_differs_between_the_passes(make_problem):
    problem = make_problem(dropout=0.5)
    batch = problem.batch(problem.train, np.arange(6))
    problem.model.train()
    assert R3F("uniform", 0.0, 1e6).loss(problem, batch).item() > 10


def test_training_is_a_function_of_the_seed(make_problem, make_settings):
    losses = [Loop(make_problem(), R3F("normal", 0.1, 1.0), make_settings(epochs=1)).run().losses for _ in range(2)]
    assert losses[0] == losses[1] and np.isfinite(losses[0]).all()


# --- bad input


def test_regression_is_refused_before_training_and_at_every_loss(make_problem, make_settings):
    problem, method = make_problem("stsb"), R3F("uniform", 1e-5, 1.0)
    with pytest.raises(InputError, match="which is vanilla; run vanilla, or r_dropout"):
        Loop(problem, method, make_settings())
    with pytest.raises(InputError, match="no penalty for regression"):
        method.loss(problem, problem.batch(problem.train, np.arange(2)))


@pytest.mark.parametrize(
    "given, message",
    [
        (("gaussian", 1e-5, 1.0), "unknown noise 'gaussian'; known: normal, uniform"),
        (("normal", -1e-5, 1.0), "sigma must be a number from 0 up, got -1e-05"),
        (("normal", float("nan"), 1.0), "sigma must be"),
        (("normal", 1e-5, -1.0), "strength must be a number from 0 up, got -1"),
        (("normal", 1e-5, float("inf")), "strength must be"),
    ],
)
def test_impossible_values_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        R3F(*given)
