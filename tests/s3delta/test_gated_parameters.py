"""Parameters of many modules prepared together are those prepared one by one, in launches that do not grow with their number."""

import pytest
import torch

from paperlib import backbones
from paperlib.s3delta.launches import Launches
from paperlib.s3delta.positions import candidates
from paperlib.s3delta.supernet import Supernet

FAMILIES = ["tiny-t5", "tiny-bert", "tiny-bart"]


def supernet_of(model, shaken):
    torch.manual_seed(0)
    supernet = Supernet(model, candidates(model, "M"))
    shaken(supernet.deltas)
    return supernet


def one_by_one(supernet, i, z):
    """With every outer parameter multiplied with its own gate: as :meth:`GatedParameters.alone`, of modules scaled in place."""
    prepared, before = supernet._parameters, [p.detach().clone() for p in supernet.deltas.parameters()]
    with torch.no_grad():
        for gate, delta in zip(z, supernet.deltas, strict=True):
            torch._foreach_mul_(delta.outer_parameters(), gate)
        found = [each.clone() for each in prepared.alone(i)]
        torch._foreach_copy_([*supernet.deltas.parameters()], before)
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_together_is_what_it_is_one_by_one(small_model, shaken, name):
    supernet = supernet_of(small_model(name), shaken)
    z = torch.rand(len(supernet.sizes), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    together = supernet._parameters.gated(z)
    taken = {bias for bias in supernet._fused.values() if bias is not None}
    assert together.keys() == set(range(len(z))) - taken and (name == "tiny-t5") == (not taken)
    for i, used in together.items():
        for one, other in zip(used, one_by_one(supernet, i, z), strict=True):
            torch.testing.assert_close(one.detach(), other, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", FAMILIES)
def test_under_autocast_factors_of_products_are_narrow_and_norms_stay_wide(small_model, shaken, name):
    supernet = supernet_of(small_model(name, dtype=torch.float32), shaken)
    with torch.autocast("cpu", torch.bfloat16):
        together = supernet._parameters.gated(torch.ones(len(supernet.sizes)))
    types = {kind: set() for kind in ("lora", "lra", "lnfit")}
    for i, used in together.items():
        types.get(supernet.positions[i].type, set()).update(each.dtype for each in used)
    assert types == {"lora": {torch.bfloat16}, "lra": {torch.bfloat16}, "lnfit": {torch.float32}}


def test_launches_do_not_grow_with_the_number_of_modules(shaken):
    """Of twice as many layers, forward and backward."""
    found = []
    for depth in (2, 4):
        config = backbones.configuration("tiny-bert")
        config.num_hidden_layers = depth
        supernet = supernet_of(backbones._model_class(config).from_config(config), shaken)
        z = torch.ones(len(supernet.sizes), requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16), Launches() as forward:
            used = [each for of_one in supernet._parameters.gated(z).values() for each in of_one]
        slopes = [torch.ones_like(each) for each in used]
        with Launches() as backward:
            torch.autograd.grad(used, [z, *supernet.deltas.parameters()], slopes)
        found.append((forward.total, backward.total, len(used)))
    (forward, backward, few), (more_forward, more_backward, many) = found
    assert many > 1.8 * few and (more_forward, more_backward) == (forward, backward)


def test_casts_are_kept_within_their_context_only(small_model, shaken, outputs):
    supernet = supernet_of(small_model("tiny-bert", dtype=torch.float32), shaken)
    weights = sum(type(module) is torch.nn.Linear for module in supernet.model.modules())

    def passed():
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad(), Launches() as found:
            logits = outputs(supernet.model)
        return logits, found.operators["_to_copy"]

    plain, casts = passed()
    with supernet.casts_kept():
        first, again = passed(), passed()
    after, casts_after = passed()
    assert all(torch.equal(plain, each) for each in (first[0], again[0], after))
    assert casts == casts_after == first[1] and casts - again[1] == weights - 2  # pooler and classifier have no LoRA
