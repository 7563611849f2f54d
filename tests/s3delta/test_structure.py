"""Structures: choice under a budget, files, exchange with peft, and merging."""

import json
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM

from paperlib import backbones
from paperlib.errors import InputError
from paperlib.s3delta import export, structure
from paperlib.s3delta.positions import baseline, candidates
from paperlib.s3delta.structure import Structure
from paperlib.s3delta.supernet import Supernet

# --- the choice


@st.composite
def searches(draw):
    """p and sizes of some modules, p often tied, and a budget that holds at least the smallest."""
    modules = draw(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 40)), min_size=1, max_size=12))
    p, sizes = [each / 8 for each, _ in modules], [size for _, size in modules]
    return p, sizes, draw(st.integers(min(sizes), 5 + sum(sizes)))


def by_hand(p, sizes, budget):
    """The published rule, one module at a time: the first of the largest p among those not looked at yet."""
    waiting, left, chosen = list(range(len(p))), budget, []
    while waiting:
        best = max(waiting, key=lambda i: (p[i], -i))
        waiting.remove(best)
        if sizes[best] <= left:
            left -= sizes[best]
            chosen.append(best)
    return chosen


@settings(deadline=None)
@given(searches())
@example(([0.1, 0.9, 0.5], [1, 10, 3], 5))  # the best does not fit and is skipped
def test_greedy_takes_the_most_probable_that_fits_and_goes_on(search):
    assert structure.greedy(*search) == by_hand(*search)


def within_and_full(chosen, sizes, budget):
    left = budget - sum(sizes[i] for i in chosen)
    others = [size for i, size in enumerate(sizes) if i not in chosen]
    return len(set(chosen)) == len(chosen) and left >= 0 and all(left < size for size in others)


@settings(deadline=None)
@given(searches())
def test_greedy_never_overspends_and_leaves_less_than_any_module_left_out(search):
    _, sizes, budget = search
    assert within_and_full(structure.greedy(*search), sizes, budget)


@settings(deadline=None)
@given(searches(), st.integers(0, 2**32))
def test_random_never_overspends_and_ends_only_when_nothing_fits(search, seed):
    _, sizes, budget = search
    assert within_and_full(structure.random(sizes, budget, np.random.default_rng(seed)), sizes, budget)


@settings(deadline=None)
@given(searches())
def test_greedy_depends_on_the_order_of_p_alone(search):
    """Not on a constant added to the logits, a temperature, or any monotone map."""
    p, sizes, budget = search
    expected = structure.greedy(p, sizes, budget)
    for moved in (np.exp(p), 7 * np.asarray(p) - 3, np.asarray(p) ** 3, np.searchsorted(np.unique(p), p)):
        assert structure.greedy(moved, sizes, budget) == expected


@settings(deadline=None)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=10))
def test_ties_go_to_the_earlier_module(sizes):
    chosen = structure.greedy([0.5] * len(sizes), sizes, sum(sizes))
    assert chosen == list(range(len(sizes)))


def test_random_draws_evenly_from_what_still_fits():
    """Sizes 1, 1, 2 in a budget of 2: the 2 first, with probability 1/3; else both ones, in either order."""
    generator = np.random.default_rng(0)
    drawn = Counter(tuple(structure.random([1, 1, 2], 2, generator)) for _ in range(6000))
    assert set(drawn) == {(2,), (0, 1), (1, 0)}
    assert all(abs(times - 2000) < 5 * math.sqrt(6000 * 2 / 9) for times in drawn.values())


def test_budgets_need_not_be_whole():
    assert structure.greedy([0.9, 0.8], [100, 2], 102.9) == [0, 1]
    assert structure.greedy([0.9, 0.8], [100, 3], 102.9) == [0]


def test_the_published_budget_holds_exactly_50_loras_of_attention():
    """1.389 per ten thousand of t5-large, 102,458.1 scalars, in space L: 102,400 of them, and no further module fits."""
    config = backbones.configuration("t5-large-config")
    config.vocab_size = 32100
    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(config)
    positions = candidates(model, "L")
    p = [1.0 if position.role in "QKVO" else 0.5 for position in positions]
    kept = Structure.greedy("t5-large", model, "L", p, structure.budget(model, 1.389)).positions(model)
    assert len(kept) == 50 and sum(position.size(model) for position in kept) == 102_400


def test_impossible_choices_are_refused():
    with pytest.raises(InputError, match="a budget of 3 scalars holds no module; the smallest has 4"):
        structure.greedy([0.1, 0.2], [4, 5], 3)
    with pytest.raises(InputError, match="a budget of 0 scalars"):
        structure.random([4, 5], 0, np.random.default_rng(0))
    with pytest.raises(InputError, match="not numbers"):
        structure.greedy([0.1, math.nan], [4, 5], 9)


# --- structures of a model


def probabilities(model, space="M", seed=0):
    return np.random.default_rng(seed).random(len(candidates(model, space)))


def found(model, budget=300, seed=0, backbone="tiny-bert", space="M"):
    return Structure.greedy(backbone, model, space, probabilities(model, space, seed), budget)


def test_a_structure_names_what_it_keeps_in_the_order_of_p(small_model):
    model = small_model("tiny-bert")
    kept = found(model)
    p = [kept.p[name] for name in kept.chosen]
    assert p == sorted(p, reverse=True) and [position.name for position in kept.positions(model)] == [*kept.chosen]
    assert sum(position.size(model) for position in kept.positions(model)) <= 300
    assert list(kept.p) == [position.name for position in candidates(model, "M")]


def test_an_average_goes_by_the_mean_of_p(small_model):
    model = small_model("tiny-bert")
    parts = [found(model, seed=seed) for seed in range(3)]
    mean = np.mean([probabilities(model, seed=seed) for seed in range(3)], axis=0)
    average = Structure.average(parts, model)
    assert average.chosen == Structure.greedy("tiny-bert", model, "M", mean, 300).chosen
    np.testing.assert_allclose(list(average.p.values()), mean)
    assert Structure.average(parts[:1], model) == parts[0]


def test_an_average_does_not_depend_on_the_order_of_names(small_model):
    """A record sorts its names, the space has them layer by layer."""
    model = small_model("tiny-bert")
    parts = [found(model, seed=seed) for seed in range(3)]
    read = [Structure.of(json.loads(json.dumps(part.plain(), sort_keys=True))) for part in parts]
    assert [*read[0].p] != [*parts[0].p] and read == parts
    assert Structure.average(read, model) == Structure.average(parts, model)
    with pytest.raises(InputError, match="other positions than this model"):
        Structure.average(parts[:2], small_model("tiny-t5"))


def test_only_structures_of_one_search_can_be_averaged(small_model):
    model = small_model("tiny-bert")
    one = found(model)
    for other in (found(model, budget=301), found(model, space="L"), found(model, backbone="other")):
        with pytest.raises(InputError, match="different backbones, spaces or budgets"):
            Structure.average([one, other], model)
    with pytest.raises(InputError, match="no probabilities to average"):
        Structure.average([Structure.random("tiny-bert", model, "M", 300, seed) for seed in (0, 1)], model)


def test_random_structures_repeat_with_their_seed(small_model):
    model = small_model("tiny-bert")
    one, again, other = (Structure.random("tiny-bert", model, "M", 300, seed) for seed in (0, 0, 1))
    assert one == again and one.chosen != other.chosen and one.p == {}


def test_probabilities_of_another_space_are_refused(small_model):
    model = small_model("tiny-bert")
    with pytest.raises(InputError, match="36 probabilities for the 12 positions of space 'L'"):
        Structure.greedy("tiny-bert", model, "L", probabilities(model), 300)


# --- files


@pytest.mark.parametrize("name", ["tiny-t5", "tiny-bert"])
def test_a_structure_comes_back_from_its_file(small_model, tmp_path, name):
    model = small_model(name)
    for kept in (found(model, backbone=name), Structure.random(name, model, "L", 200.5, 0)):
        kept.save(tmp_path)
        assert Structure.load(tmp_path, name) == kept


def test_a_structure_of_another_backbone_is_refused(small_model, tmp_path):
    found(small_model("tiny-bert")).save(tmp_path)
    with pytest.raises(InputError, match="structure.json is for backbone 'tiny-bert', not 'tiny-t5'"):
        Structure.load(tmp_path, "tiny-t5")


def test_positions_that_the_model_does_not_have_are_refused(small_model):
    kept = found(small_model("tiny-bert"))
    with pytest.raises(InputError, match="positions that this model does not have, such as 'bert.encoder.layer"):
        kept.positions(small_model("tiny-t5"))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"backbone": "b", "space": "M", "budget": "x", "chosen": [], "p": {}}']
)
def test_broken_structure_files_are_refused(tmp_path, text):
    (tmp_path / "structure.json").write_text(text)
    with pytest.raises(InputError, match="structure.json holds no structure"):
        Structure.load(tmp_path, "b")


def test_absent_structure_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no structure file"):
        Structure.load(tmp_path, "b")


@pytest.fixture
def trained(small_model, shaken):
    """``trained(name, space)``: a whole space as a structure, and its supernet with modules and a head that have moved."""

    def make(name, space="M"):
        model = small_model(name)
        kept = Structure.greedy(name, model, space, probabilities(model, space), 1e9)
        torch.manual_seed(0)
        supernet = Supernet(model, kept.positions(model))
        shaken(supernet.deltas)
        with torch.no_grad():
            for parameter in supernet.head.values():
                parameter += 0.1
        return kept, supernet

    return make


@pytest.mark.parametrize("name", ["tiny-t5", "tiny-bert", "tiny-bart"])
def test_all_types_come_back_from_their_file(small_model, outputs, tmp_path, trained, name):
    kept, supernet = trained(name)
    export.save(tmp_path, kept, supernet)
    model = small_model(name)
    again, loaded = export.load(tmp_path, model, name)
    assert again == kept and torch.equal(outputs(model), outputs(supernet.model))
    assert {path.name for path in tmp_path.iterdir()} == {"structure.json", "deltas.safetensors"}
    stored = sum(tensor.numel() for tensor in load_file(tmp_path / "deltas.safetensors").values())
    assert stored == loaded.numel + sum(parameter.numel() for parameter in loaded.head.values())


def test_broken_weight_files_are_refused_and_leave_the_model_plain(small_model, outputs, tmp_path, trained):
    kept, supernet = trained("tiny-bert")
    export.save(tmp_path, kept, supernet)
    path, model = tmp_path / "deltas.safetensors", small_model("tiny-bert")
    plain, tensors = outputs(model), load_file(path)
    name = "bert.encoder.layer.0.output.dense:lora.A"
    for wrong in ({name: None}, {name: torch.zeros(2, 64)}, {"more": torch.zeros(1)}, {"head:classifier.bias": None}):
        save_file({key: tensor for key, tensor in (tensors | wrong).items() if tensor is not None}, path)
        with pytest.raises(InputError, match=f"1 tensors differ, such as '{next(iter(wrong))}'"):
            export.load(tmp_path, model, "tiny-bert")
        assert torch.equal(outputs(model), plain)
    path.write_bytes(b"no tensors")
    with pytest.raises(InputError, match="is no safetensors file"):
        export.load(tmp_path, model, "tiny-bert")
    path.unlink()
    with pytest.raises(InputError, match="no file of delta weights"):
        export.load(tmp_path, model, "tiny-bert")


# --- peft


@pytest.mark.parametrize("name", ["tiny-t5", "tiny-bert", "tiny-roberta"])
def test_lora_modules_come_back_from_peft_format(small_model, outputs, tmp_path, trained, name):
    _, supernet = trained(name, "L")
    export.save_peft(tmp_path, supernet, name)
    loaded = export.load_peft(tmp_path, small_model(name))
    assert sorted(loaded.names) == sorted(supernet.names)
    torch.testing.assert_close(outputs(loaded.model), outputs(supernet.model), rtol=1e-12, atol=1e-12)


def test_mixed_ranks_go_through_peft_format(small_model, outputs, tmp_path, shaken):
    model = small_model("tiny-t5")
    torch.manual_seed(0)
    wide, narrow = baseline(model, "lora_r8"), [p for p in candidates(model, "L") if p.role == "W2"]
    supernet = Supernet(model, wide + narrow)
    shaken(supernet.deltas)
    export.save_peft(tmp_path, supernet, "tiny-t5")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["r"] == 8 and set(config["rank_pattern"].values()) == {1} and len(config["rank_pattern"]) == 4
    loaded = export.load_peft(tmp_path, small_model("tiny-t5"))
    torch.testing.assert_close(outputs(loaded.model), outputs(model), rtol=1e-12, atol=1e-12)


# Trained modules as large as their use would make them, so that single precision can tell 1e-6 apart; double precision needs no such care.
PRECISIONS = pytest.mark.parametrize(
    "dtype, by, tolerance", [(torch.float32, 0.02, 1e-6), (torch.float64, 0.3, 1e-12)], ids=["fp32", "fp64"]
)


def assert_same(one, other, tolerance):
    """To the tolerance, as a share of the whole: ||one - other|| / ||other||."""
    assert (one - other).norm() <= tolerance * other.norm()


@PRECISIONS
@pytest.mark.parametrize("mixed", [False, True], ids=["rank 1", "ranks 1 and 8"])
@pytest.mark.parametrize("name", ["tiny-t5", "tiny-bert", "tiny-roberta"])
def test_peft_computes_what_an_exported_structure_computes(
    exact_norms, small_model, outputs, tmp_path, shaken, name, mixed, dtype, by, tolerance
):
    peft = pytest.importorskip("peft")
    model = small_model(name, dtype=torch.float32)
    torch.manual_seed(0)
    loras = candidates(model, "L")
    supernet = Supernet(
        model, [p for p in loras if p.role not in "QV"] + baseline(model, "lora_r8") if mixed else loras
    )
    shaken(supernet.deltas, by=by)
    export.save_peft(tmp_path, supernet, name)
    theirs = peft.PeftModel.from_pretrained(small_model(name, dtype=torch.float32), tmp_path).eval().to(dtype)
    found, plain = outputs(theirs), outputs(small_model(name, dtype=dtype))
    assert (found - plain).norm() > 1e-3 * plain.norm(), "the adapter does nothing: nothing is tested"
    assert_same(found, outputs(model.to(dtype)), tolerance)


@PRECISIONS
@pytest.mark.parametrize("alpha", [16, 5])
@pytest.mark.parametrize("name", ["tiny-t5", "tiny-bert"])
def test_a_checkpoint_of_peft_computes_the_same_here(
    exact_norms, small_model, outputs, tmp_path, name, alpha, dtype, by, tolerance
):
    peft = pytest.importorskip("peft")
    head = {"task_type": "SEQ_CLS"} if name == "tiny-bert" else {}
    targets = ["q", "wo"] if name == "tiny-t5" else ["query", "output.dense"]
    exclude = r".*EncDecAttention.*" if name == "tiny-t5" else None
    config = peft.LoraConfig(r=2, lora_alpha=alpha, target_modules=targets, exclude_modules=exclude, **head)
    theirs = peft.get_peft_model(small_model(name, dtype=torch.float32), config).eval()
    with torch.no_grad():
        for label, parameter in theirs.named_parameters():
            if "lora_B" in label:
                parameter.normal_(std=by, generator=torch.Generator().manual_seed(0))
    theirs.save_pretrained(tmp_path)
    ours = export.load_peft(tmp_path, small_model(name, dtype=dtype))
    assert_same(outputs(ours.model), outputs(theirs.to(dtype)), tolerance)


def test_what_peft_cannot_hold_or_we_cannot_read_is_refused(small_model, tmp_path, trained):
    model = small_model("tiny-bert")
    with pytest.raises(InputError, match="no LoRA module"):
        export.save_peft(tmp_path, Supernet(model, baseline(model, "bitfit")), "tiny-bert")
    with pytest.raises(InputError, match="no adapter configuration"):
        export.load_peft(tmp_path, small_model("tiny-bert"))
    _, supernet = trained("tiny-bert", "L")
    export.save_peft(tmp_path, supernet, "tiny-bert")
    path = tmp_path / "adapter_config.json"
    config = json.loads(path.read_text())
    for changed in (
        {"peft_type": "IA3"},
        {"use_dora": True},
        {"use_rslora": True},
        {"bias": "all"},
        {"alpha_pattern": {"q": 1}},
    ):
        path.write_text(json.dumps(config | changed))
        with pytest.raises(InputError, match="only plain LoRA"):
            export.load_peft(tmp_path, small_model("tiny-bert"))
    for text in ("{", "[]", "{}", '{"peft_type": "LORA", "lora_alpha": "much"}'):
        path.write_text(text)
        with pytest.raises(InputError, match="is no adapter configuration of peft"):
            export.load_peft(tmp_path, small_model("tiny-bert"))
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match="no candidate positions of this model"):
        export.load_peft(tmp_path, small_model("tiny-t5"))


# --- merging


@pytest.mark.parametrize("name", ["tiny-t5", "tiny-bert", "tiny-roberta", "tiny-deberta", "tiny-bart"])
@PRECISIONS
@pytest.mark.parametrize("space", ["M", "L"])
def test_a_merged_model_computes_the_same(exact_norms, small_model, outputs, shaken, name, space, dtype, by, tolerance):
    model = small_model(name, dtype=dtype)
    torch.manual_seed(0)
    supernet = Supernet(model, candidates(model, space))
    shaken(supernet.deltas, by=by)
    expected = outputs(model)
    export.merge(supernet)
    assert_same(outputs(model), expected, tolerance)


def test_nothing_is_left_of_lora_and_lnfit(small_model):
    model = small_model("tiny-t5")
    names = [name for name, _ in model.named_parameters()]
    assert export.merge(Supernet(model, candidates(model, "L") + baseline(model, "lnfit"))) is None
    assert [name for name, _ in model.named_parameters()] == names


@pytest.mark.parametrize(
    "name, left",
    [
        ("tiny-t5", {"bitfit", "lra"}),  # a T5 has no biases
        ("tiny-bert", {"bitfit", "lra"}),  # an adapter reads the output without its bias
    ],
)
def test_what_cannot_be_merged_stays_in_a_supernet(small_model, name, left):
    model = small_model(name)
    rest = export.merge(Supernet(model, candidates(model, "M")))
    assert {position.type for position in rest.positions} == left
    if name == "tiny-bert":
        assert {position.role for position in rest.positions} == {"O", "W2", "SelfAttn", "FFN"}
