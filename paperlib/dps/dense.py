"""DPS Dense: the subnetwork of the largest accumulated squared gradients; forward passes see the weights themselves."""

from paperlib.dps.subnetwork import Subnetwork


class DPSDense(Subnetwork):
    """DPS Dense (Zhang et al. 2022): every entry's score is its GAM.

    Keeps 4 bytes per tracked weight in stage I (GAM), 1 in stage II (the mask), 5 of one weight at a time in between; packed masks take 1/8, beside
    GAM while they are made.
    """
