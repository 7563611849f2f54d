"""Whether the hub answers. Left to itself its client retries for half a minute before it looks into its cache."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from urllib.error import HTTPError
from urllib.request import Request, urlopen

SECONDS_TO_REACH = 5


@contextmanager
def cache_alone_if_unreachable(*copies: ModuleType) -> Iterator[None]:
    """Within this context the hub's client asks its local cache alone if HF_HUB_OFFLINE is set or the hub does not answer.

    ``copies``: modules of libraries that keep a copy of the client's HF_HUB_OFFLINE.
    """
    from huggingface_hub import constants

    holders = (constants, *copies)
    before = [holder.HF_HUB_OFFLINE for holder in holders]
    offline = any(before) or not reachable(constants.ENDPOINT)
    try:
        for holder in holders:
            holder.HF_HUB_OFFLINE = offline
        yield
    finally:
        for holder, flag in zip(holders, before, strict=True):
            holder.HF_HUB_OFFLINE = flag


def reachable(endpoint: str) -> bool:
    """Whether ``endpoint``, a URL, answers within :data:`SECONDS_TO_REACH`."""
    try:
        urlopen(Request(endpoint, method="HEAD"), timeout=SECONDS_TO_REACH).close()
    except HTTPError:  # an answer, if an unfriendly one
        return True
    except OSError:
        return False
    return True
