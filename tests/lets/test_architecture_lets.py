"""LeTS-R: the frozen pass, the points of the space that are known models, soft selectors, and what a sub-task owns."""

import copy
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModel

from paperlib import backbones
from paperlib.errors import InputError
from paperlib.lets import operations
from paperlib.lets.architecture import Architecture, Own, Task
from paperlib.lets.frozen_pass import FrozenEncoder
from paperlib.lets.own_layers import OwnLinear
from paperlib.lets.readout import Readout, ReadoutSizes

L, D, OUTPUTS = 3, 32, 2
SIZES = ReadoutSizes(aggregation=5, lstm=4)
FAMILIES = ["tiny-bert", "tiny-roberta", "tiny-electra"]
ENCODER = operations.Encoder(L, D, 2 * D)
CLOSE = {"rtol": 0, "atol": 1e-12}
# Ours -> the same place in a layer of transformers.
PLACES = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense",
    "attention.norm": "attention.output.LayerNorm",
    "feed_forward.intermediate": "intermediate.dense",
    "feed_forward.output": "output.dense",
    "feed_forward.norm": "output.LayerNorm",
}


@torch.no_grad()
def shaken(module, seed, by=0.2):
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter += by * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return module


@cache
def _plain(name, dropout, attention):
    config = backbones.configuration(name)
    config.num_hidden_layers, config.vocab_size = L, 50
    config.pad_token_id = 0
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
    torch.manual_seed(0)
    return shaken(AutoModel.from_config(config, attn_implementation=attention).double().eval(), seed=1)


def plain(name="tiny-bert", dropout=0.0, attention="eager"):
    """A small model of three layers in float64, its weights far from a fresh model's."""
    return copy.deepcopy(_plain(name, dropout, attention))


def make(architecture, name="tiny-bert", moved=True, **options):
    """``(frozen encoder, task)``; ``moved``: everything the task owns is away from its start."""
    frozen = FrozenEncoder(plain(name, **options))
    torch.manual_seed(2)
    task = Task(frozen, architecture, OUTPUTS, SIZES).eval()
    return frozen, shaken(task, seed=3) if moved else task


@cache
def super_network():
    """One that owns everything, for tests that change nothing of it."""
    return make(Architecture.all_own(L))


def inputs(seed=0, rows=3, length=6):
    """A padded batch: the second row is two tokens short."""
    ids = torch.randint(5, 50, (rows, length), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


def fine_tuned(model, task):
    """A plain copy of ``model`` with weights W^p + W^d, biases b^t and norms wherever ``task`` owns them."""
    tuned = copy.deepcopy(model)
    for layer, ours in zip(tuned.encoder.layer, task.layers, strict=True):
        for place, theirs in PLACES.items():
            part, _, leaf = place.partition(".")
            if (owner := getattr(ours, part)) is None:
                continue
            own, module = getattr(owner, leaf), layer.get_submodule(theirs)
            with torch.no_grad():
                module.bias.copy_(own.bias)
                if isinstance(own, OwnLinear):
                    module.weight.add_(own.offset.weight)
                else:
                    module.weight.copy_(own.weight)
    return tuned


def states_of(model, given):
    return model(**given, output_hidden_states=True).hidden_states[1:]


def expected_states(model, task, own, given):
    """H^t_1 .. H^t_L by the definition, with modules of transformers alone; ``own``: (L, 3) probabilities."""
    tuned, masks = fine_tuned(model, task), []
    handle = model.encoder.layer[0].attention.self.register_forward_pre_hook(
        lambda module, args, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True
    )
    frozen = model(**given, output_hidden_states=True).hidden_states
    handle.remove()
    states = [frozen[0]]
    for j, (s1, s2, s3) in enumerate(own):
        base, ours = model.encoder.layer[j], tuned.encoder.layer[j]
        x = (1 - s1) * frozen[j] + s1 * states[-1]
        attended = ours.attention(x, masks[0])[0]
        middle = (1 - s2) * base.attention(frozen[j], masks[0])[0] + s2 * attended
        skipped = (1 - s2) * frozen[j + 1] + s2 * attended
        states.append((1 - s3) * skipped + s3 * ours.feed_forward_chunk(middle))
    return states[1:]


def assert_close(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


def equal(found, expected):
    return all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


architectures = st.lists(st.builds(Own, st.booleans(), st.booleans(), st.booleans()), min_size=L, max_size=L).map(
    lambda rows: Architecture(tuple(rows))
)
probabilities = st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=L, max_size=L).map(
    lambda rows: torch.tensor(rows, dtype=torch.float64)
)


# --- points of the space that are known models


@pytest.mark.parametrize("name", FAMILIES)
def test_all_share_is_the_frozen_model_bit_for_bit(name):
    frozen, task = make(Architecture.all_share(L), name)
    shared, expected = frozen(**inputs()), states_of(plain(name), inputs())
    assert equal(task.hidden_states(shared), expected)
    assert torch.equal(task(shared), task.readout(torch.stack(expected)[:, :, 0]))


@pytest.mark.parametrize("name", FAMILIES)
def test_all_own_without_offsets_is_the_frozen_model_bit_for_bit(name):
    frozen, task = make(Architecture.all_own(L), name, moved=False)
    assert equal(task.hidden_states(frozen(**inputs())), states_of(plain(name), inputs()))


@pytest.mark.parametrize("k", range(L + 1))
@pytest.mark.parametrize("name", FAMILIES)
def test_freezing_the_bottom_is_the_plain_model_with_its_upper_layers_changed_bit_for_bit(name, k):
    frozen, task = make(Architecture.freeze_bottom(L, k), name)
    expected = states_of(fine_tuned(plain(name), task), inputs())
    assert equal(task.hidden_states(frozen(**inputs())), expected)
    if k < L:
        assert not torch.allclose(expected[-1], states_of(plain(name), inputs())[-1], atol=0.1), "nothing is tested"


@pytest.mark.parametrize("k", range(L + 1))
def test_gradients_are_those_of_the_plain_model_fine_tuned(k):
    frozen, task = make(Architecture.freeze_bottom(L, k))
    tuned, readout = fine_tuned(plain(), task), copy.deepcopy(task.readout)
    for parameter in tuned.encoder.layer[:k].parameters():
        parameter.requires_grad_(False)
    task(frozen(**inputs())).square().sum().backward()
    readout(torch.stack(states_of(tuned, inputs()))[:, :, 0]).square().sum().backward()
    assert_close([p.grad for p in task.readout.parameters()], [p.grad for p in readout.parameters()])
    for j in range(k, L):
        for place, theirs in PLACES.items():
            own, module = task.layers[j].get_submodule(place), tuned.encoder.layer[j].get_submodule(theirs)
            weight = own.offset.weight if isinstance(own, OwnLinear) else own.weight
            assert_close([weight.grad, own.bias.grad], [module.weight.grad, module.bias.grad])
            assert own.bias.grad is not None


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-roberta"])
def test_all_own_trains_with_the_dropout_of_the_plain_model(name):
    frozen, task = make(Architecture.all_own(L), name, dropout=0.3)
    tuned, shared = fine_tuned(plain(name, dropout=0.3), task).train(), frozen(**inputs())
    task.train()
    torch.manual_seed(5)
    expected = states_of(tuned, inputs())
    torch.manual_seed(5)
    found = task.hidden_states(shared)
    assert equal(found, expected)
    assert not equal(found, task.eval().hidden_states(shared))


def test_sharing_has_no_dropout_and_nothing_wakes_it():
    frozen, task = make(Architecture.all_share(L), dropout=0.3)
    nn.ModuleList([frozen, task]).train()
    assert equal(task.hidden_states(frozen(**inputs())), states_of(plain(dropout=0.3), inputs()))


def test_any_attention_of_the_backbone_serves():
    found = []
    for attention in ("eager", "sdpa"):
        frozen, task = make(Architecture((Own(False, True, True),) * L), attention=attention)
        found.append(task(frozen(**inputs())))
    torch.testing.assert_close(*found, **CLOSE)


def test_autocast_is_close_to_full_precision():
    frozen, task = make(Architecture((Own(False, True, False), Own(True, False, True), Own(False, True, True))))
    frozen.float(), task.float()
    full = task(frozen(**inputs()))
    with torch.autocast("cpu", torch.bfloat16):
        scores = task(frozen(**inputs()))
    torch.testing.assert_close(scores.float(), full, rtol=0, atol=0.05)
    assert not torch.equal(scores.float(), full)
    scores.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in task.parameters())


# --- selectors


@settings(max_examples=30, deadline=None)
@given(own=architectures)
def test_every_architecture_computes_what_it_says(own):
    frozen, task = super_network()
    with torch.no_grad():
        found = task.hidden_states(frozen(**inputs()), own)
        assert_close(found, expected_states(plain(), task, own.probabilities(dtype=torch.float64), inputs()))


@settings(max_examples=30, deadline=None)
@given(own=probabilities)
def test_soft_selectors_mix_their_branches(own):
    frozen, task = super_network()
    with torch.no_grad():
        assert_close(task.hidden_states(frozen(**inputs()), own), expected_states(plain(), task, own, inputs()))


@settings(max_examples=30, deadline=None)
@given(own=architectures)
def test_soft_selectors_at_one_hot_probabilities_are_the_discrete_ones(own):
    frozen, task = super_network()
    with torch.no_grad():
        shared = frozen(**inputs())
        soft = task.hidden_states(shared, own.probabilities(dtype=torch.float64))
        assert_close(soft, task.hidden_states(shared, own))
        # Sharing an input adds W^d x to a known W^p x; otherwise nothing is even rounded differently.
        if all(layer.input or not layer.attention for layer in own.layers):
            assert equal(soft, task.hidden_states(shared, own))


@given(own=architectures)
def test_an_architecture_is_found_again_in_its_probabilities(own):
    assert Architecture.most_probable(own.probabilities()) == own


@settings(max_examples=30, deadline=None)
@given(own=architectures)
def test_a_reduced_architecture_computes_the_same_with_no_more_operations(own):
    frozen, task = super_network()
    with torch.no_grad():
        shared = frozen(**inputs())
        assert_close(task.hidden_states(shared, own.reduced()), task.hidden_states(shared, own))
    macs = [
        sum(sum(layer.values()) for layer in operations.task(ENCODER, 6, each, 0.1)) for each in (own, own.reduced())
    ]
    assert macs[1] <= macs[0] and own.reduced().reduced() == own.reduced()


def test_the_first_owned_attention_has_no_input_of_its_own():
    assert Architecture.freeze_bottom(L, 1).reduced() == Architecture(
        (Own(False, False, False), Own(False, True, True), Own(True, True, True))
    )


def test_a_tie_is_shared():
    assert Architecture.most_probable(torch.full((L, 3), 0.5)) == Architecture.all_share(L)


@settings(max_examples=15, deadline=None)
@given(own=architectures)
def test_a_task_of_its_own_computes_what_the_super_network_computes_there(own):
    frozen, whole = super_network()
    part = Task(frozen, own, OUTPUTS, SIZES).eval()
    part.load_state_dict({name: whole.state_dict()[name] for name in part.state_dict()})
    shared = frozen(**inputs())
    assert torch.equal(part(shared), whole(shared, own))


def test_gradients_of_selectors_are_right():
    frozen, task = make(Architecture.all_own(L))
    own = torch.rand((L, 3), generator=torch.Generator().manual_seed(4), dtype=torch.float64).requires_grad_()
    shared = frozen(**inputs())
    assert torch.autograd.gradcheck(lambda own: task(shared, own), own)
    task(shared, own).square().sum().backward()
    # In layer 1 both inputs are the embeddings.
    assert own.grad[0, 0].abs() < 1e-12 and (own.grad.flatten()[1:].abs() > 1e-6).all()
    assert all(parameter.grad is not None for parameter in task.parameters())


def test_only_the_task_is_trained():
    frozen, task = make(Architecture.all_own(L))
    before = copy.deepcopy(frozen.state_dict())
    optimizer = torch.optim.AdamW(nn.ModuleList([frozen, task]).parameters(), lr=0.1)
    shared = frozen(**inputs())
    task(shared, torch.full((L, 3), 0.5, dtype=torch.float64)).sum().backward()
    optimizer.step()
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in frozen.parameters())
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    assert not any(layer.output.requires_grad for layer in shared.layers)
    assert not {id(p) for p in task.parameters()} & {id(p) for p in frozen.parameters()}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_reuse_is_exact_algebra(dtype, tolerance):
    torch.manual_seed(0)
    known = nn.Linear(64, 48, dtype=dtype)
    own, x = shaken(OwnLinear(known), seed=1, by=0.02), torch.randn(5, 7, 64, dtype=dtype)
    torch.testing.assert_close(own.reusing(known, x, known(x)), own(known, x), rtol=tolerance, atol=tolerance)
    assert not torch.allclose(own(known, x), known(x), atol=1e-2)


# --- masks and sharing


@pytest.mark.parametrize("own", [(False, True, True), (True, True, False), (False, False, True)])
def test_padding_is_not_read(own):
    frozen, task = make(Architecture((Own(*own),) * L))
    given = inputs()
    scores = task(frozen(**given))
    changed = given["input_ids"] + 7 * (1 - given["attention_mask"])
    torch.testing.assert_close(scores, task(frozen(changed, given["attention_mask"])), **CLOSE)
    alone = task(frozen(given["input_ids"][1:2, :4]))
    torch.testing.assert_close(scores[1:2], alone, **CLOSE)


def count_linears(frozen):
    calls = []
    for module in frozen.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda *_: calls.append(1))
    return calls


@settings(max_examples=10, deadline=None)
@given(owns=st.lists(architectures, min_size=1, max_size=4))
def test_any_number_of_tasks_share_one_frozen_pass(owns):
    frozen, _ = make(Architecture.all_share(L))
    tasks = [Task(frozen, own, OUTPUTS, SIZES).eval() for own in [Architecture.all_share(L), *owns]]
    apart = [task(frozen(**inputs())) for task in tasks]
    calls, shared = count_linears(frozen), frozen(**inputs())
    assert equal([task(shared) for task in tasks], apart)
    assert len(calls) == 6 * L, "q, k, v, output and two of the feed-forward, once per layer"


@pytest.mark.parametrize(
    ("own", "linears"),
    [
        (Architecture.freeze_bottom(L, 0), 0),
        (Architecture.freeze_bottom(L, 2), 6 * 2),
        (Architecture((Own(False, True, True), Own(True, True, True), Own(True, True, True))), 3),
        (Architecture((Own(True, True, True), Own(False, False, True), Own(True, True, True))), 6 + 4),
    ],
    ids=["nothing", "two layers", "q, k and v of the first", "attention of the second"],
)
def test_only_what_is_shared_is_computed_by_the_frozen_model(own, linears):
    frozen, task = make(own)
    calls = count_linears(frozen)
    task(frozen(**inputs()))
    assert len(calls) == linears


# --- parameters


def closed_form(own, layers, d, f, outputs, sizes):
    m, h = sizes.aggregation, sizes.lstm
    attention, feed_forward = (sum(getattr(row, part) for row in own.layers) for part in ("attention", "feed_forward"))
    return {
        "offsets": attention * 4 * d * d + feed_forward * 2 * d * f,
        "biases": attention * (4 * d + d) + feed_forward * (f + d + d),
        "norms": (attention + feed_forward) * d,
        "readout": layers * (d * m + m) + 2 * (4 * h * (m + h) + 8 * h) + 2 * h * outputs + outputs,
    }


@settings(max_examples=15, deadline=None)
@given(own=architectures)
def test_parameters_of_a_task(own):
    _, task = make(own, moved=False)
    assert task.sizes() == closed_form(own, L, D, 64, OUTPUTS, SIZES)
    assert sum(task.sizes().values()) == sum(parameter.numel() for parameter in task.parameters())


def test_parameters_of_a_task_on_bert_large():
    with torch.device("meta"):
        large = AutoModel.from_config(backbones.configuration("bert-large-config"))
        frozen = FrozenEncoder(large)
        own = Architecture.all_own(24)
        sizes = Task(frozen, own, 2).sizes()
    assert sizes == closed_form(own, 24, 1024, 4096, 2, ReadoutSizes())
    assert sizes["offsets"] == 24 * 12_582_912
    assert sizes["biases"] + sizes["norms"] + sizes["offsets"] == 24 * 12_596_224
    assert round(100 * sizes["readout"] / 335_141_888, 2) == 0.49, "as the docstring says"


@pytest.mark.parametrize(
    ("name", "whole", "embeddings", "layer", "pooler"),
    [
        ("bert-base-config", 109_482_240, 23_837_184, 7_087_872, 590_592),
        ("bert-large-config", 335_141_888, 31_782_912, 12_596_224, 1_049_600),
    ],
)
def test_parameters_of_bert(name, whole, embeddings, layer, pooler):
    """The uncased models, whose vocabulary is the larger one."""
    config = backbones.configuration(name)
    config.vocab_size = 30_522
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    parts = {"embeddings": model.embeddings, "layer": model.encoder.layer[0], "pooler": model.pooler}
    counts = {part: sum(each.numel() for each in module.parameters()) for part, module in parts.items()}
    assert counts == {"embeddings": embeddings, "layer": layer, "pooler": pooler}
    assert sum(each.numel() for each in model.parameters()) == whole
    assert whole == embeddings + model.config.num_hidden_layers * layer + pooler


def test_biases_of_the_transformer_learn_at_their_own_rate():
    _, task = make(Architecture.freeze_bottom(L, 1))
    others, biases = task.parameter_groups(learning_rate=2e-5, bias_learning_rate=5e-4)
    assert (others["lr"], biases["lr"]) == (2e-5, 5e-4)
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    found = {names[id(parameter)] for parameter in biases["params"]}
    assert found == {f"layers.{j}.{place}.bias" for j in range(1, L) for place in PLACES}
    assert {id(p) for p in others["params"]} == set(names) - {id(p) for p in biases["params"]}


def test_a_new_task_is_drawn_from_torch_s_generator():
    frozen, first = make(Architecture.all_own(L), moved=False)
    torch.manual_seed(2)
    again = Task(frozen, Architecture.all_own(L), OUTPUTS, SIZES)
    assert equal(again.parameters(), first.parameters())
    other = Task(frozen, Architecture.all_own(L), OUTPUTS, SIZES)
    assert not torch.equal(other.readout.aggregation_weight, first.readout.aggregation_weight)
    assert all(parameter.dtype == torch.float64 for parameter in other.parameters())


def test_the_readout_reads_layers_in_both_directions():
    torch.manual_seed(0)
    readout = Readout(L, D, OUTPUTS, SIZES, dropout=0.0).double()
    pooled = torch.randn(L, 3, D, dtype=torch.float64)
    sequence = torch.stack(
        [
            x @ weight + bias
            for x, weight, bias in zip(pooled, readout.aggregation_weight, readout.aggregation_bias, strict=True)
        ]
    )
    states, _ = readout.lstm(sequence)
    ends = torch.cat((states[-1, :, : SIZES.lstm], states[0, :, SIZES.lstm :]), dim=-1)
    torch.testing.assert_close(readout(pooled), readout.head(ends), **CLOSE)


# --- bad input


@pytest.mark.parametrize("name", ["tiny-t5", "tiny-deberta", "tiny-bart"])
def test_other_backbones_are_refused(name):
    with torch.device("meta"):
        model = AutoModel.from_config(backbones.configuration(name))
    with pytest.raises(InputError, match=f"BERT type .*, not a {model.config.model_type}"):
        FrozenEncoder(model)


def test_a_decoder_is_refused():
    config = backbones.configuration("tiny-bert")
    config.is_decoder = True
    with torch.device("meta"), pytest.raises(InputError, match="not a bert decoder"):
        FrozenEncoder(AutoModel.from_config(config))


@pytest.mark.parametrize("k", [L + 1, -1, 1.5])
def test_no_more_layers_are_frozen_than_there_are(k):
    with pytest.raises(InputError, match=f"{k} frozen layers; the encoder has {L}"):
        Architecture.freeze_bottom(L, k)


@pytest.mark.parametrize("rows", [(), ((True, False),), ((1, 0, 1),), ((True, False, True, True),)])
def test_an_architecture_is_three_truth_values_per_layer(rows):
    with pytest.raises(InputError, match="architecture: "):
        Architecture(rows)


def test_an_architecture_fits_its_encoder():
    with pytest.raises(InputError, match="an architecture for 2 layers; the encoder has 3"):
        make(Architecture.all_own(2))


@pytest.mark.parametrize("size", [0, -1, 2.0])
def test_a_readout_has_a_size(size):
    with pytest.raises(InputError, match="readout: lstm must be a positive whole number"):
        ReadoutSizes(lstm=size)


def test_a_task_computes_only_what_it_owns():
    frozen, task = make(Architecture.freeze_bottom(L, 1))
    shared = frozen(**inputs())
    for own in (Architecture.all_own(L), torch.full((L, 3), 0.5, dtype=torch.float64)):
        with pytest.raises(ValueError, match="does not own what it is to compute in layer 1"):
            task(shared, own)
    for own in (torch.zeros(L, 2), Architecture.all_share(L - 1)):
        with pytest.raises(ValueError):
            task(shared, own)
