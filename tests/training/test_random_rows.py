"""Problems of random tokens: what every head needs of a row."""

import numpy as np
import pytest

from paperlib import backbones
from paperlib.errors import InputError
from paperlib.training.random_rows import FIRST_LABEL, RandomRows


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-roberta", "tiny-electra", "tiny-deberta", "tiny-bart"])
def test_every_encoder_with_a_head_scores_random_rows(name):
    """Enough of them that any id turns up: BART's head takes no row with an end of sentence too many."""
    problem = RandomRows.draw(backbones.load(name, 2, seed=0), 300, 500, seed=0)
    batch = problem.batch(problem.train, np.arange(300))
    assert batch["input_ids"].shape == (300, 500)
    if name == "tiny-bart":
        ends = batch["input_ids"] == problem.model.config.eos_token_id
        assert ends[:, -1].all() and int(ends.sum()) == 300
    else:
        assert (batch["input_ids"] == 102).any()
    few = {key: tensor[:2] for key, tensor in batch.items()}
    assert problem.logits(few).isfinite().all()


def test_a_text_to_text_model_writes_its_label_and_stops():
    problem = RandomRows.draw(backbones.load("tiny-t5", 2, seed=0), 40, 12, seed=0)
    batch = problem.batch(problem.train, np.arange(40))
    assert batch["input_ids"].shape == (40, 12) and batch["labels"].shape == (40, 2)
    assert set(batch["labels"][:, 0].tolist()) == {FIRST_LABEL, FIRST_LABEL + 1}
    assert (batch["labels"][:, 1] == problem.model.config.eos_token_id).all()
    assert problem.loss(problem.logits(batch), batch).isfinite()


def test_rows_longer_than_a_backbone_reads_are_refused():
    with pytest.raises(InputError, match="tiny-bert reads 512 tokens at most; .*not 513"):
        RandomRows.draw(backbones.load("tiny-bert", 2, seed=0), 2, 513, seed=0)
