"""The fine-tuning methods by name, with the variants the papers' texts and their published code stand for."""

from dataclasses import dataclass, fields

from paperlib.dps.child_tuning import ChildTuningD, ChildTuningF
from paperlib.dps.dense import DPSDense
from paperlib.dps.mix import DPSMix
from paperlib.dps.mixout import Mixout
from paperlib.dps.r3f import R3F
from paperlib.dps.r_dropout import RDropout
from paperlib.dps.re_init import ReInit
from paperlib.errors import InputError
from paperlib.training import Method, Together

PRESETS = ("reference", "paper")
# In the order in which joined ones attach: what draws the weights to start from, objectives, what looks after weights from that start on.
METHODS = (
    "vanilla",
    "re_init",
    "r3f",
    "r_dropout",
    "mixout",
    "child_tuning_d",
    "child_tuning_f",
    "dps_dense",
    "dps_mix",
)


@dataclass(frozen=True)
class Choice:
    """A method and what it is given; each method reads the values that are its own.

    ``method``: a name, or names of different families joined by "+", such as "r_dropout+dps_mix". ``p``: Mixout's mixing probability,
    CHILD-TUNING's kept share, DPS's p (``preset`` says which share that is). ``strength``: R3F's lambda, R-Drop's alpha.
    ``selection``: where DPS compares weights, in each "matrix" or "global". ``reference_dtypes``: DPS's and Mixout's masks as wide as in the
    published code, which changes memory and nothing else.
    """

    method: str
    preset: str = "reference"
    p: float = 0.3
    update_ratio: float = 0.05
    selection: str = "matrix"
    noise: str = "uniform"
    sigma: float = 1e-5
    strength: float = 1.0
    reinit_layers: int = 1
    reference_dtypes: bool = False

    @classmethod
    def of(cls, parameters) -> "Choice":
        """The choice among a run's parameters."""
        return cls(
            **{each.name: getattr(parameters, each.name) for each in fields(cls) if hasattr(parameters, each.name)}
        )

    @property
    def parts(self) -> list[str]:
        """Names of the methods joined."""
        return self.method.split("+")


def build(choice: Choice) -> Method:
    """The method chosen, joined ones attached in the order of ``METHODS``; InputError for unknown names and values outside their range.

    ``preset`` "reference" is the published code's reading, "paper" the text's. DPS: p is dropped or reserved; momentum moves masked weights or
    they stay fixed; DPS Mix's penalty rests in stages of less than 50 steps or never, and it rescales the chosen weights or does not.
    Mixout: its gradient lacks the factor 1 / (1 - p) or has it. R-Drop: KL summed over the batch or averaged.
    """
    if choice.preset not in PRESETS:
        raise InputError(f"unknown preset {choice.preset!r}; known: {', '.join(PRESETS)}")
    if unknown := [name for name in choice.parts if name not in METHODS]:
        raise InputError(f"unknown method {unknown[0]!r}; known: {', '.join(METHODS)}")
    parts = [_one(name, choice) for name in sorted(choice.parts, key=METHODS.index)]
    return parts[0] if len(parts) == 1 else Together(*parts)


def _one(name: str, choice: Choice) -> Method:
    reference = choice.preset == "reference"
    match name:
        case "vanilla":
            return Method()
        case "mixout":
            return Mixout(choice.p, true_gradient=not reference, reference_dtypes=choice.reference_dtypes)
        case "r3f":
            return R3F(choice.noise, choice.sigma, choice.strength)
        case "r_dropout":
            return RDropout(choice.strength, "batch_sum" if reference else "batch_mean")
        case "re_init":
            return ReInit(choice.reinit_layers)
        case "child_tuning_d":
            return ChildTuningD(choice.p)
        case "child_tuning_f":
            return ChildTuningF(choice.p)
        case _:
            return _dps(name, choice, reference)


def _dps(name: str, choice: Choice, reference: bool) -> Method:
    shared = {
        "keep_fraction": 1 - choice.p if reference else choice.p,
        "update_ratio": choice.update_ratio,
        "masked_policy": "grad_zero" if reference else "freeze",
        "selection": choice.selection,
        "reference_dtypes": choice.reference_dtypes,
    }
    if name == "dps_dense":
        return DPSDense(**shared)
    return DPSMix(penalty_from=50 if reference else 1, rescale=reference, **shared)


def dropout(choice: Choice, total_steps: int) -> float:
    """Dropout the published code trains the method with; negative: the backbone's own.

    DPS Dense runs without below 2,000 steps and DPS Mix always does, which the paper's text does not mention; Mixout replaces dropout. Joined with
    R-Drop all keep it, since without dropout its two passes are one.
    """
    if choice.preset == "paper" or "r_dropout" in choice.parts:
        return -1.0
    silent = {"mixout", "dps_mix"} | ({"dps_dense"} if total_steps < 2000 else set())
    return 0.0 if silent & set(choice.parts) else -1.0
