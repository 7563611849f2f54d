"""Reaching for the hub: an answer in time, or the local cache alone."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import ModuleType

import pytest
from huggingface_hub import constants, is_offline_mode

from paperlib import hub


@pytest.fixture
def server():
    """A web server on this machine that answers every HEAD with the status in its path."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(int(self.path.strip("/")))
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()


@pytest.mark.parametrize("status", [200, 404, 503])
def test_any_answer_is_an_answer(server, status):
    assert hub.reachable(f"{server}/{status}")


def test_a_refused_connection_and_an_unknown_name_are_none():
    assert not hub.reachable("http://127.0.0.1:9")
    assert not hub.reachable("http://no-such-host.invalid")


@pytest.mark.parametrize("answers", [True, False])
def test_the_client_is_offline_only_where_the_hub_is_silent(monkeypatch, answers):
    monkeypatch.setattr(hub, "reachable", lambda endpoint: answers)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    copy = ModuleType("copy")
    copy.HF_HUB_OFFLINE = False
    with hub.cache_alone_if_unreachable(copy):
        assert is_offline_mode() == copy.HF_HUB_OFFLINE == (not answers)
    assert not is_offline_mode() and not copy.HF_HUB_OFFLINE


def test_who_asked_for_offline_is_not_probed_and_stays_offline(monkeypatch):
    monkeypatch.setattr(hub, "reachable", lambda endpoint: pytest.fail("probed"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with hub.cache_alone_if_unreachable():
        assert is_offline_mode()
    assert is_offline_mode()


def test_the_flag_comes_back_after_a_failure(monkeypatch):
    monkeypatch.setattr(hub, "reachable", lambda endpoint: False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(OSError), hub.cache_alone_if_unreachable():
        raise OSError
    assert not is_offline_mode()
