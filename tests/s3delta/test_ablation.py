"""Reading the ablation of Figure 8 (S3Delta, appendix C.2) from records."""

import numpy as np
import pytest

from paperlib.records import Record
from paperlib.s3delta.ablation import Ablation, jaccard
from paperlib.s3delta.positions import candidates

AT = {"task": "rte", "space": "M", "budget": 1.389, "seed": 0}
SIZES = {"a:lora": 4, "b:bitfit": 2, "c:lra": 6, "d:bitfit": 2}


def search(chosen, gradient="global", probabilities=((0.5, 0.5, 0.5, 0.5),), **at):
    results = {
        "structure": {"chosen": list(chosen), "budget": 6.0},
        "names": list(SIZES),
        "modules": {name: {"size": size} for name, size in SIZES.items()},
        "validation": [{"accuracy": 0.5 + 0.1 * k, "f1": 0.0} for k in range(len(probabilities))],
        "probabilities": [list(p) for p in probabilities],
    }
    parameters = {**AT, "gradient": gradient, "interval": 20, **at}
    return Record(notebook="runs/search", parameters=parameters, results=results)


def retrained(score, gradient=None, placement="searched", **at):
    search = {} if gradient is None else {"gradient": gradient}
    parameters = {**AT, "placement": placement, "searched_on": [], "search": search, **at}
    results = {"test": {"accuracy": score, "f1": 0.0}}
    return Record(notebook="runs/delta_tuning", parameters=parameters, results=results)


def test_nothing_done_is_an_empty_ablation():
    empty = Ablation.of([])
    assert (empty.scores, empty.searches, empty.pairs(), empty.overlaps(5, np.random.default_rng(0))) == (
        {},
        {},
        {},
        [],
    )


def test_scores_are_paired_on_setting_and_seed():
    found = Ablation.of(
        [
            *(retrained(0.6, seed=0), retrained(0.5, "local", seed=0), retrained(0.7, "global", seed=1)),
            *(retrained(0.4, "local", seed=2), retrained(0.9, task="cola"), retrained(0.8, "local", budget=5.0)),
            *(retrained(0.1, placement="random", seed=5), retrained(0.2, searched_on=["cola"], seed=2)),
        ]
    )
    assert found.pairs() == {"RTE, M at 1.389": [(0.6, 0.5)]}
    assert found.scores["RTE, M at 1.389"] == {"global": {0: 0.6, 1: 0.7}, "local": {0: 0.5, 2: 0.4}}
    assert found.metrics["CoLA, M at 1.389"] == "accuracy" and found.pairs("local", "global")["RTE, M at 1.389"] == [
        (0.5, 0.6)
    ]


def test_curves_count_optimizer_steps_and_the_budget_of_the_chosen(small_model):
    """Probabilities are in the order of the candidates, whatever the order of the names in the record."""
    model = small_model("tiny-bert")
    sizes = {position.name: position.size(model) for position in candidates(model, "L")}
    chosen = {name: k in (3, 4) for k, name in enumerate(sizes)}
    budget = float(sum(size for name, size in sizes.items() if chosen[name]))
    record = search([], probabilities=[[0.5 * held for held in chosen.values()], [*map(float, chosen.values())]])
    record.parameters |= {"backbone": "tiny-bert", "space": "L"}
    record.results["structure"] = {"chosen": [name for name in chosen if chosen[name]], "budget": budget}
    record.results["names"] = list(sizes)
    record.results["modules"] = {name: {"size": sizes[name]} for name in sorted(sizes)}
    assert list(sizes) != sorted(sizes)
    ((gradient, steps, scores, held),) = Ablation.of([record]).curves()["RTE, L at 1.389"]
    assert gradient == "global" and steps.tolist() == [20, 40] and scores == [0.5, 0.6]
    np.testing.assert_allclose(held, [0.5, 1.0], rtol=1e-12)


def test_overlaps_compare_gradients_on_a_seed_seeds_of_a_gradient_and_chance():
    records = [
        search(["a:lora", "b:bitfit"], seed=0),
        search(["a:lora", "d:bitfit"], "local", seed=0),
        search(["c:lra"], seed=1),
        search(["a:lora", "b:bitfit"], "local", seed=2),
    ]
    rows = {row["compared"]: row for row in Ablation.of(records).overlaps(300, np.random.default_rng(0))}
    assert rows.keys() == {
        "two random structures",
        "global and local, same seed",
        "global, two seeds",
        "local, two seeds",
    }
    assert rows["global and local, same seed"]["mean"] == pytest.approx(1 / 3)
    assert rows["global, two seeds"]["mean"] == 0 and rows["local, two seeds"]["pairs"] == 1
    chance = rows["two random structures"]
    assert chance["pairs"] == 300 and 0 == chance["least"] < chance["mean"] < chance["most"] == 1


def test_jaccard():
    assert jaccard({1, 2}, {2, 3}) == pytest.approx(1 / 3) and jaccard({1}, {1}) == 1 and jaccard({1}, {2}) == 0
