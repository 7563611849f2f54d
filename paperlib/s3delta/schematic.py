"""A picture of one transformer layer with its places for delta modules, drawn from the model itself (appendix A.1)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import nn

from paperlib.s3delta.anatomy import calls
from paperlib.s3delta.positions import TITLES, Position, candidates

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 6.0
EDGE, GREY, INK = "#777777", "#F2F2F2", "#222222"
PARTS = {
    "SelfAttn.LN": "norm",
    "CrossAttn.LN": "norm",
    "FFN.LN": "norm",
    "O": r"$W_O$",
    "W1": r"$W_1$",
    "W2": r"$W_2$",
    "softmax": "multi-head attention",
    "cross": "cross-attention",
    "sigma": r"activation $\sigma$",
}
SKIPS = {"SelfAttn": "Q", "FFN": "W1"}


def steps(order: Sequence[str]) -> list[str]:
    """What hidden states pass on their way up a layer, given the roles in order of use: also what holds no place, and the skip connections.

    "fork" is where a skip connection leaves, "join" where it is added; "QKV" stands for the three maps side by side.
    """
    post = order.index("SelfAttn.LN") > order.index("O")
    found: list[str] = []
    for role in order:
        if role in ("K", "V", "W1 gate"):
            continue
        starts = role in (("Q", "W1") if post else ("SelfAttn.LN", "CrossAttn.LN", "FFN.LN"))
        found += ["fork"] if starts else []
        found += {"Q": ["QKV", "softmax"], "W1": ["W1", "sigma"]}.get(role, [role])
        found += {"O": ["SelfAttn", "join"], "W2": ["FFN", "join"], "CrossAttn.LN": ["cross", "join"]}.get(role, [])
    return found


def draw(ax: "Axes", model: nn.Module, side: str, index: int, colours: Mapping[str, str], title: str) -> None:
    """One layer, bottom to top. ``colours``: delta type -> colour. Types on the left read their host's input, those on the right its output."""
    here = [p for p in candidates(model, "M") if (p.side, p.layer) == (side, index) and p.role != "Final_LN"]
    at: dict[str, list[Position]] = {}
    for position in here:
        at.setdefault(position.role, []).append(position)
    level, fork = 0.6, 0.0
    _text(ax, WIDTH / 2, 0.0, r"$H_{in}$", 10)
    for step in steps(calls(model, side, index)):
        match step:
            case "fork":
                fork, level = level - 0.1, level + 0.25
            case "join":
                level = _join(ax, fork, level)
            case "QKV":
                level = _three(ax, level, at, colours)
            case "SelfAttn" | "FFN":
                level = _chips(ax, WIDTH / 2, level + 0.1, at.get(step, []), colours)
            case _:
                level = _part(ax, step, level, at.get(step, []), colours)
    _text(ax, WIDTH / 2, level + 0.15, r"$H_{out}$", 10)
    ax.plot([WIDTH / 2] * 2, [0.25, level - 0.1], color=EDGE, lw=1, zorder=0)
    # Panels that share their axis have the height of the tallest.
    ax.set(xlim=(-1.9, WIDTH + 2.5), ylim=(-0.4, max(ax.get_ylim()[1], level + 0.6)), title=title)
    ax.set_axis_off()


def _part(ax: "Axes", step: str, level: float, positions: list[Position], colours: Mapping[str, str]) -> float:
    """A box over the whole width with its chips beside it; the level above it."""
    _box(ax, 0.5, level, WIDTH - 1, 0.62, "white" if positions else GREY)
    _text(ax, WIDTH / 2, level + 0.31, PARTS[step], 9)
    for position in positions:
        x = -0.75 if position.parallel else WIDTH + 0.75
        _chip(ax, x, level + 0.31, position, colours)
    return level + 0.85


def _three(ax: "Axes", level: float, at: Mapping[str, list[Position]], colours: Mapping[str, str]) -> float:
    """Q, K and V side by side with their chips below and above."""
    for number, role in enumerate("QKV"):
        x = (number + 0.5) * WIDTH / 3
        wires = [level + 0.08] * 2 + [level + 1.86] * 2
        ax.plot([WIDTH / 2, x, x, WIDTH / 2], wires, color=EDGE, lw=1, zorder=0)
        _box(ax, x - 0.8, level + 0.7, 1.6, 0.55, "white")
        _text(ax, x, level + 0.97, f"$W_{role}$", 9)
        for position in at[role]:
            _chip(ax, x, level + (0.4 if position.parallel else 1.55), position, colours)
    return level + 2.0


def _chips(ax: "Axes", x: float, level: float, positions: list[Position], colours: Mapping[str, str]) -> float:
    for position in positions:
        _chip(ax, x, level + 0.2, position, colours)
    return level + 0.55


def _join(ax: "Axes", fork: float, level: float) -> float:
    """The skip connection from ``fork`` to a plus sign at ``level``."""
    right = WIDTH + 2.0
    ends = [fork, fork, level + 0.2, level + 0.2]
    ax.plot([WIDTH / 2, right, right, WIDTH / 2], ends, color=EDGE, lw=1, ls="--", zorder=0)
    ax.plot(WIDTH / 2, level + 0.2, "o", ms=13, mfc="white", mec=EDGE, zorder=2)
    _text(ax, WIDTH / 2, level + 0.2, "+", 11)
    return level + 0.65


def _chip(ax: "Axes", x: float, y: float, position: Position, colours: Mapping[str, str]) -> None:
    ax.add_patch(_rectangle(x - 0.7, y - 0.21, 1.4, 0.42, "white", "none"))
    ax.add_patch(_rectangle(x - 0.7, y - 0.21, 1.4, 0.42, (colours[position.type], 0.3), colours[position.type]))
    _text(ax, x, y, TITLES[position.type], 8)


def _box(ax: "Axes", x: float, y: float, width: float, height: float, fill: str) -> None:
    ax.add_patch(_rectangle(x, y, width, height, fill, EDGE))


def _rectangle(x: float, y: float, width: float, height: float, fill, edge: str):
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.12", fc=fill, ec=edge, zorder=3)


def _text(ax: "Axes", x: float, y: float, text: str, size: float) -> None:
    ax.text(x, y, text, ha="center", va="center", fontsize=size, color=INK, zorder=4)
