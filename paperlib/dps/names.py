"""What readers call the methods."""

TITLES = {
    "vanilla": "vanilla",
    "mixout": "Mixout",
    "r3f": "R3F",
    "r_dropout": "R-Drop",
    "re_init": "Re-init",
    "child_tuning_d": "CHILD D",
    "child_tuning_f": "CHILD F",
    "dps_dense": "DPS Dense",
    "dps_mix": "DPS Mix",
}


def title(method: str) -> str:
    """Name to print for a method, or for several joined by "+"; a name unknown here stands for itself."""
    return " + ".join(TITLES.get(part, part) for part in method.split("+"))
