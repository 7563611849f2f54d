"""The picture of a layer: what stands in it, in which order."""

import matplotlib.pyplot as plt
import pytest

from paperlib.s3delta import schematic
from paperlib.s3delta.positions import TITLES, candidates

COLOURS = dict.fromkeys(TITLES, "#0072B2")
PRE = ["SelfAttn.LN", "Q", "K", "V", "O", "FFN.LN", "W1", "W2"]
POST = ["Q", "K", "V", "O", "SelfAttn.LN", "W1", "W2", "FFN.LN"]


def test_a_pre_norm_layer_forks_before_its_norms():
    assert schematic.steps(PRE) == [
        *("fork", "SelfAttn.LN", "QKV", "softmax", "O", "SelfAttn", "join"),
        *("fork", "FFN.LN", "W1", "sigma", "W2", "FFN", "join"),
    ]


def test_a_post_norm_layer_joins_before_its_norms():
    assert schematic.steps(POST) == [
        *("fork", "QKV", "softmax", "O", "SelfAttn", "join", "SelfAttn.LN"),
        *("fork", "W1", "sigma", "W2", "FFN", "join", "FFN.LN"),
    ]


def test_a_decoder_layer_has_its_cross_attention_between():
    steps = schematic.steps([*PRE[:5], "CrossAttn.LN", *PRE[5:]])
    assert steps[7:11] == ["fork", "CrossAttn.LN", "cross", "join"]


@pytest.mark.parametrize("name, side", [("tiny-t5", "encoder"), ("tiny-t5", "decoder"), ("tiny-bert", "encoder")])
def test_every_candidate_of_the_layer_has_its_chip(small_model, name, side):
    model = small_model(name)
    fig, ax = plt.subplots()
    schematic.draw(ax, model, side, 0, COLOURS, "one layer")
    written = [text.get_text() for text in ax.texts]
    plt.close(fig)
    here = [p for p in candidates(model, "M") if (p.side, p.layer) == (side, 0) and p.role != "Final_LN"]
    for title in ("LoRA", "BitFit", "LNFiT", "LRA"):
        assert written.count(title) == sum(TITLES[p.type] == title for p in here), title
    assert written.count("+") == (3 if side == "decoder" else 2)
    assert ax.get_title(loc="left") == "one layer"
