"""Checkpoints: complete, atomic, and nothing but tensors and JSON."""

import copy
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from paperlib.training import Method, checkpoint
from paperlib.training.optimizer import adamw

STATE = {"step": 3, "losses": [0.1, float("nan"), 1 / 3], "validation": [{"accuracy": 0.7}], "tokens": 10**12}


class Counting(Method):
    """A method with a state of its own."""

    def __init__(self):
        self.memory = torch.zeros(2)

    def state_dict(self):
        return {"memory.a.b": self.memory}

    def load_state_dict(self, state):
        self.memory = state["memory.a.b"]


class Training:
    """A model after some steps, with everything a checkpoint holds."""

    def __init__(self, make_settings, seed):
        torch.manual_seed(seed)
        self.model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 2))
        self.optimizer = adamw(self.model, make_settings())
        self.method, self.generator = Counting(), np.random.Generator(np.random.SFC64(seed))

    def step(self):
        noise = torch.from_numpy(self.generator.normal(size=(5, 3))).float() + torch.randn(5, 3)
        self.model(noise).square().sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.method.memory = self.method.memory + torch.randn(2)

    @property
    def parts(self):
        return self.model, self.optimizer, self.method, self.generator

    def everything(self):
        moments = [
            self.optimizer.state[p][key] for p in self.model.parameters() for key in ("exp_avg", "exp_avg_sq", "step")
        ]
        return [*map(torch.clone, self.model.parameters()), *map(torch.clone, moments), self.method.memory]


@pytest.fixture
def train(make_settings):
    return lambda seed: Training(make_settings, seed)


def test_no_checkpoint_is_none_and_changes_nothing(train, tmp_path):
    training = train(0)
    before = copy.deepcopy(training.model.state_dict())
    assert checkpoint.load(tmp_path, *training.parts) is None
    assert all(torch.equal(before[name], value) for name, value in training.model.state_dict().items())


def test_what_was_saved_comes_back_and_goes_on_bitwise(train, tmp_path):
    """Weights, moments, step counters, the method's state, both random streams, and the loop's state to the last bit."""
    one = train(0)
    for _ in range(3):
        one.step()
    checkpoint.save(tmp_path, *one.parts, STATE)
    one.step()
    other = train(1)
    state = checkpoint.load(tmp_path, *other.parts)
    assert json.dumps(state) == json.dumps(STATE)
    other.step()
    assert all(torch.equal(a, b) for a, b in zip(one.everything(), other.everything(), strict=True))


def test_before_the_first_step_there_are_no_moments(train, tmp_path):
    checkpoint.save(tmp_path, *train(0).parts, STATE)
    other = train(1)
    checkpoint.load(tmp_path, *other.parts)
    assert not other.optimizer.state


def test_the_file_is_a_json_header_and_raw_tensors(train, tmp_path):
    """No pickle: safetensors' layout accounts for every byte of the file."""
    training = train(0)
    training.step()
    checkpoint.save(tmp_path, *training.parts, STATE)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    told = json.loads(content[8:header])
    assert json.loads(told.pop("__metadata__")["state"])["tokens"] == 10**12
    assert max(each["data_offsets"][1] for each in told.values()) == len(content) - header
    assert set(load_file(file)) == set(told)
    assert {"model.0.weight", "optimizer.0.weight.exp_avg", "method.memory.a.b", "rng.cpu"} <= set(told)


def test_a_half_written_file_is_not_a_checkpoint(train, tmp_path):
    (tmp_path / "checkpoint.part").write_bytes(b"half")
    assert checkpoint.load(tmp_path, *train(0).parts) is None


def test_a_kill_while_writing_leaves_the_last_checkpoint(train, tmp_path, monkeypatch):
    training = train(0)
    training.step()
    checkpoint.save(tmp_path, *training.parts, {"step": 1})
    expected = training.everything()
    training.step()

    def dies(tensors, path, metadata):
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save_file", dies)
        checkpoint.save(tmp_path, *training.parts, {"step": 2})
    other = train(1)
    assert checkpoint.load(tmp_path, *other.parts) == {"step": 1}
    assert all(torch.equal(a, b) for a, b in zip(other.everything(), expected, strict=True))
    checkpoint.save(tmp_path, *other.parts, {"step": 2})
    assert checkpoint.load(tmp_path, *train(2).parts) == {"step": 2}


def test_the_best_weights_come_back(train, tmp_path):
    one, other = train(0), train(1)
    checkpoint.save_best(tmp_path / "new folder", one.model)
    checkpoint.load_best(tmp_path / "new folder", other.model)
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))


def test_clearing_removes_both_files_and_nothing_else(train, tmp_path):
    training = train(0)
    checkpoint.save(tmp_path, *training.parts, STATE)
    checkpoint.save_best(tmp_path, training.model)
    (tmp_path / "record.json").touch()
    for _ in range(2):
        checkpoint.clear(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_frozen_weights_are_not_written_and_stay_as_the_reader_loaded_them(train, tmp_path):
    one, other = train(0), train(1)
    for training in (one, other):
        training.model[0].requires_grad_(False)
        training.optimizer = torch.optim.AdamW([p for p in training.model.parameters() if p.requires_grad])
    one.step()
    before = other.model[0].weight.clone()
    checkpoint.save(tmp_path, *one.parts, STATE)
    checkpoint.save_best(tmp_path, one.model)
    assert not [
        name for file in (checkpoint.NAME, checkpoint.BEST) for name in load_file(tmp_path / file) if "0." in name[:8]
    ]
    checkpoint.load(tmp_path, *other.parts)
    checkpoint.load_best(tmp_path, other.model)
    assert torch.equal(other.model[0].weight, before) and torch.equal(other.model[2].weight, one.model[2].weight)
