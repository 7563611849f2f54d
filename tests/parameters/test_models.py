"""What a notebook's parameters may be: strict types, known names, ranges; each mistake told in one line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperlib import parameters
from paperlib.errors import InputError
from paperlib.parameters.runs import METHODS

RUN = "runs/finetune"


def refusal(notebook=RUN, **values) -> str:
    with pytest.raises(InputError) as error:
        parameters.resolve(notebook, values)
    message = str(error.value)
    assert "\n" not in message and message.startswith(notebook)
    return message


def test_what_is_not_given_keeps_the_default_of_the_parameters_cell():
    resolved = parameters.resolve(RUN, {"seed": 7})
    assert (resolved.seed, resolved.task, resolved.learning_rate) == (7, "rte", 2e-5)


def test_an_unknown_parameter_is_named_with_the_known_ones_and_a_suggestion():
    message = refusal(sed=1)
    assert "unknown parameter 'sed' (did you mean 'seed'?)" in message
    assert "known: " in message and "checkpoint_seconds" in message


@pytest.mark.parametrize(
    "key, value",
    [
        ("seed", "1"),
        ("seed", 1.5),
        ("seed", True),
        ("epochs", None),
        ("learning_rate", "fast"),
        ("task", 3),
        ("task", ["rte"]),
        ("checkpoint_seconds", False),
    ],
)
def test_a_wrong_type_is_refused_naming_the_key_and_the_value(key, value):
    message = refusal(**{key: value})
    assert f"{key}: " in message and f"got {value!r}" in message


@pytest.mark.parametrize(
    "key, value",
    [
        ("seed", -1),
        ("seed", 2**32),
        ("epochs", 0),
        ("batch_size", 0),
        ("train_rows", -1),
        ("p", -0.1),
        ("p", 1.1),
        ("update_ratio", 0.0),
        ("learning_rate", 0.0),
        ("warmup_ratio", 1.0),
        ("clip_norm", 0.0),
        ("clip_norm", float("inf")),
        ("learning_rate", float("nan")),
        ("dropout", 1.0),
        ("precision", "fp16"),
        ("protocol", "glue"),
        ("preset", "text"),
        ("selection", "layer"),
        ("noise", "gaussian"),
        ("sigma", 0.0),
        ("strength", -0.1),
        ("reinit_layers", 0),
        ("steps", -1),
        ("warmup_steps", -1),
        ("decay_towards", "start"),
        ("layer_decay", 0.0),
        ("layer_decay", 1.5),
        ("layer_decay_form", "google"),
        ("source", "disk"),
    ],
)
def test_a_value_out_of_range_is_refused_naming_the_key(key, value):
    assert f"{key}: input should be" in refusal(**{key: value})


def test_several_mistakes_are_told_at_once():
    message = refusal(seed=-1, epochs=0, tasks="rte")
    assert all(key in message for key in ("seed: ", "epochs: ", "'tasks'"))


def test_an_unknown_task_lists_the_known_ones():
    message = refusal(task="rta")
    assert "unknown task 'rta' (did you mean 'rte'?)" in message and "superglue_rte" in message


@pytest.mark.parametrize("method", [*METHODS, "r_dropout+dps_mix", "mixout+re_init", "re_init+r3f+child_tuning_d"])
def test_methods_are_named_alone_or_joined_across_families(method):
    assert parameters.resolve(RUN, {"method": method}).method == method


@pytest.mark.parametrize(
    "method, told",
    [
        ("dps_mxi", "unknown method 'dps_mxi' (did you mean 'dps_mix'?); known: vanilla, re_init, "),
        ("r3f+dps-dense", "unknown method 'dps-dense' (did you mean 'dps_dense'?); known: "),
        ("mixout, r3f", "unknown method 'mixout, r3f'"),
        ("re_init+", "unknown method ''; known: "),
        ("mixout+dps_mix", "method 'mixout+dps_mix' joins two weights methods (mixout, dps_mix); keep one of them"),
        ("r3f+re_init+r_dropout", "joins two objective methods (r3f, r_dropout); keep one of them"),
        ("re_init+re_init", "joins two start methods (re_init, re_init); keep one of them"),
        ("vanilla+dps_mix", "method 'vanilla+dps_mix': vanilla adds nothing to another method; leave it out"),
        ("vanilla+vanilla", "vanilla adds nothing"),
    ],
)
def test_methods_that_are_none_or_do_not_go_together_are_told(method, told):
    assert told in refusal(method=method)


def test_an_unknown_backbone_says_what_can_be_given():
    message = refusal(backbone="mini-lm")
    assert "unknown backbone 'mini-lm' (did you mean 'minilm'?)" in message
    assert "model.safetensors" in message and "hub id" in message


@pytest.mark.parametrize("name", ["minilm", "tiny-t5", "google-bert/bert-base-cased"])
def test_names_and_hub_ids_are_backbones(name):
    assert parameters.resolve(RUN, {"backbone": name}).backbone == name


@pytest.mark.parametrize("given", ["./nowhere", "/nowhere", "~/nowhere", "a/b/c"])
def test_a_backbone_folder_must_exist(given):
    assert "unknown backbone" in refusal(backbone=given)


def test_folders_become_absolute_so_that_they_mean_the_same_everywhere(tmp_path, monkeypatch):
    (tmp_path / "bert").mkdir()
    (tmp_path / "rows").mkdir()
    monkeypatch.chdir(tmp_path)
    resolved = parameters.resolve(RUN, {"backbone": "./bert", "source": "directory", "data_dir": "rows"})
    assert (resolved.backbone, resolved.data_dir) == (str(tmp_path / "bert"), str(tmp_path / "rows"))


def test_a_named_backbone_is_never_a_folder_of_the_same_name(tmp_path, monkeypatch):
    (tmp_path / "minilm").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parameters.resolve(RUN, {"backbone": "minilm"}).backbone == "minilm"


def test_source_directory_needs_a_folder_that_exists(tmp_path):
    assert "source 'directory' needs data_dir" in refusal(source="directory")
    missing = str(tmp_path / "missing")
    assert f"data_dir {missing!r} is not a folder" in refusal(source="directory", data_dir=missing)


def test_whole_numbers_are_floats_too_and_mean_the_same():
    assert repr(parameters.resolve(RUN, {"clip_norm": 1}).clip_norm) == "1.0"


def test_lists_are_checked_item_by_item():
    notebook = "s3delta/c1_binary_concrete"
    assert "probabilities.1: " in refusal(notebook, probabilities=[0.5, 1.0])
    assert "betas.0: " in refusal(notebook, betas=["low"])
    assert "seeds: " in refusal(notebook, seeds=[1])


@given(
    st.dictionaries(
        st.text(min_size=1), st.none() | st.booleans() | st.text() | st.integers() | st.floats(), min_size=1
    )
)
def test_whatever_is_given_is_accepted_or_told_in_one_line(values):
    try:
        parameters.resolve(RUN, values)
    except InputError as error:
        assert len(str(error).splitlines()) == 1


def test_an_unknown_notebook_lists_the_known_ones():
    with pytest.raises(InputError, match="unknown notebook 'runs/fine'; known: .*runs/finetune"):
        parameters.resolve("runs/fine", {})


def test_a_notebook_without_a_model_is_told(monkeypatch, tmp_path, write_notebook):
    monkeypatch.setattr("paperlib.paths.NOTEBOOKS", tmp_path)
    write_notebook(tmp_path, "runs/new", "seed: int = 0  # x")
    with pytest.raises(InputError, match="runs/new: no parameter model; add one"):
        parameters.resolve("runs/new", {})


def test_values_cannot_change_after_validation():
    with pytest.raises(ValueError, match="frozen"):
        parameters.resolve(RUN, {}).seed = 3


def test_the_home_folder_may_be_written_as_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "glue").mkdir()
    resolved = parameters.resolve(RUN, {"source": "directory", "data_dir": "~/glue"})
    assert Path(resolved.data_dir) == tmp_path / "glue"


@pytest.mark.parametrize(
    "method, preset, p",
    [
        ("mixout", "reference", 1.0),
        ("dps_dense", "reference", 1.0),
        ("r_dropout+dps_mix", "reference", 1.0),
        ("dps_mix", "paper", 0.0),
        ("child_tuning_d", "reference", 0.0),
        ("child_tuning_f", "paper", 0.0),
    ],
)
def test_a_p_that_would_train_nothing_is_refused(method, preset, p):
    with pytest.raises(InputError, match=r"trains the share (1 - )?p; give one (below 1|above 0)"):
        parameters.resolve(RUN, {"method": method, "preset": preset, "p": p})


@pytest.mark.parametrize(
    "method, preset, p",
    [
        ("vanilla", "reference", 1.0),
        ("child_tuning_d", "reference", 1.0),
        ("dps_mix", "paper", 1.0),
        ("mixout", "paper", 0.0),
    ],
)
def test_a_p_that_trains_everything_is_fine(method, preset, p):
    assert parameters.resolve(RUN, {"method": method, "preset": preset, "p": p}).p == p
