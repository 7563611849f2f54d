"""Parameters of the scoreboard."""

from paperlib.parameters.base import DataParameters, Parameters


class Overview(DataParameters):
    """``overview``: every section's verdicts in one table."""

    profile: str


MODELS: dict[str, type[Parameters]] = {"overview": Overview}
