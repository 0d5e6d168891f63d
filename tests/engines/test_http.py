"""Servers that are down, slow, busy, broken or something else: one message each, a bounded number of tries, no hang."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.engines.standin import free_port
from trellis.engines import Clock, Http, OpenAIEndpoint, StatusError

KEY = "sk-secret-0123456789"


class FakeTime:
    """A clock whose pauses take no time."""

    def __init__(self) -> None:
        self.time, self.pauses = 0.0, []

    def wait(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.time += seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.time, self.wait)


@contextmanager
def answering(*answers):
    """A server that gives these answers, (status, body) or raw bytes, in turn and then the last; and its requests."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def reply(self):
            length = int(self.headers.get("Content-Length") or 0)
            seen.append((self.path, self.rfile.read(length), self.headers.get("Authorization")))
            answer = answers[min(len(seen), len(answers)) - 1]
            answer = answer() if callable(answer) else answer
            if isinstance(answer, bytes):
                self.wfile.write(answer)
                return
            status, body = answer
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = reply

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()


def said(text):
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def test_a_server_that_is_down_is_waited_for_and_then_named():
    time = FakeTime()
    http = Http(f"http://127.0.0.1:{free_port()}", clock=time.clock, advice="start it with: serve")
    with pytest.raises(
        ConnectionError, match=r"no usable answer from .*refused.*attempts in \d+ s.*start it with: serve"
    ):
        http.call("/x", {}, timeout=60)
    assert time.pauses[:5] == [0.5, 1, 2, 4, 8]
    assert sum(time.pauses) < 60


def test_tries_are_counted():
    time = FakeTime()
    with (
        answering((503, "busy")) as (url, seen),
        pytest.raises(ConnectionError, match="status 503 busy.*3 attempts"),
    ):
        Http(url, tries=3, clock=time.clock).call("/x", {}, timeout=600)
    assert len(seen) == 3
    assert len(time.pauses) == 2


def test_a_busy_server_is_asked_again():
    with answering((503, ""), (429, ""), (200, {"ok": 1})) as (url, seen):
        assert Http(url, clock=FakeTime().clock).call("/x", {"a": 1}, timeout=60) == {"ok": 1}
    assert [body for _, body, _ in seen] == [b'{"a": 1}'] * 3


def test_an_error_of_the_server_is_told_once():
    with (
        answering((500, "out of memory")) as (url, seen),
        pytest.raises(StatusError, match="status 500: out of memory"),
    ):
        Http(url, clock=FakeTime().clock).call("/x", {}, timeout=60)
    assert len(seen) == 1


def test_a_slow_server_ends_at_the_deadline():
    import socket

    with socket.socket() as silent:  # takes connections, says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(TimeoutError, match="did not answer in time"):
            Http(f"http://127.0.0.1:{silent.getsockname()[1]}").call("/x", {}, timeout=0.2)


def test_an_answer_in_drips_ends_at_the_deadline():
    time = FakeTime()

    def now():
        time.time += 1  # each look at the clock is a second later
        return time.time

    with answering((200, "x" * 400_000)) as (url, _), pytest.raises(TimeoutError):
        Http(url, clock=Clock(now, time.wait)).call("/x", {}, timeout=3)


def test_half_an_answer_is_asked_for_again_unless_that_would_do_harm():
    half = b'HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\n{"a"'
    with answering(half, (200, {"a": 1})) as (url, seen):
        assert Http(url, clock=FakeTime().clock).call("/x", {}, timeout=60) == {"a": 1}
        assert len(seen) == 2
    with answering(half) as (url, seen), pytest.raises(ConnectionError, match="4 of 100 bytes"):
        Http(url, clock=FakeTime().clock).call("/x", {}, timeout=60, again=False)
    assert len(seen) == 1


def test_another_program_on_that_port_is_said():
    with (
        answering((200, "<html>Welcome")) as (url, _),
        pytest.raises(ValueError, match="'<html>Welcome', expected JSON"),
    ):
        Http(url).call("/x", timeout=5)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", ""])
def test_an_address_needs_its_scheme_and_host(url):
    with pytest.raises(ValueError, match="http://HOST:PORT"):
        Http(url)


def test_a_password_in_an_address_is_refused_and_not_repeated():
    with pytest.raises(ValueError, match="environment variable") as caught:
        Http("http://me:hunter2@host")
    assert "hunter2" not in str(caught.value)


@pytest.fixture
def key():
    """A key in the environment, for one test."""
    import os

    os.environ["TRELLIS_TEST_KEY"] = KEY
    yield "TRELLIS_TEST_KEY"
    del os.environ["TRELLIS_TEST_KEY"]


def test_the_endpoint_answers_texts_and_chats_in_order(key):
    with answering((200, said("fine"))) as (url, seen):
        endpoint = OpenAIEndpoint(url + "/v1/", "judge", api_key_env=key, concurrency=1)
        chat = [{"role": "system", "content": "be short"}, {"role": "user", "content": "b"}]
        assert endpoint.complete(["a", chat], max_tokens=5) == ["fine", "fine"]
    bodies = [json.loads(body) for _, body, _ in seen]
    assert bodies[0] == {"model": "judge", "messages": [{"role": "user", "content": "a"}], "max_tokens": 5}
    assert bodies[1]["messages"] == chat
    assert {(path, auth) for path, _, auth in seen} == {("/v1/chat/completions", f"Bearer {KEY}")}


def test_the_key_is_shown_nowhere(key, caplog):
    echo = (401, f"invalid key {KEY}")
    with answering((503, KEY), echo) as (url, _):
        endpoint = OpenAIEndpoint(url, "judge", api_key_env=key, clock=FakeTime().clock)
        with pytest.raises(StatusError, match="TRELLIS_TEST_KEY") as caught:
            endpoint.complete(["a"])
    assert KEY not in str(caught.value) + repr(endpoint) + repr(endpoint.http) + caplog.text
    assert KEY not in repr(vars(endpoint)) + repr(vars(endpoint.http))


def test_a_key_does_not_follow_a_redirect(key):
    with answering((200, said("stolen"))) as (elsewhere, stolen):
        moved = f"HTTP/1.0 302 Found\r\nLocation: {elsewhere}/v1\r\nContent-Length: 0\r\n\r\n".encode()
        with answering(moved) as (url, _), pytest.raises(StatusError, match="302"):
            OpenAIEndpoint(url, "judge", api_key_env=key).complete(["a"])
    assert stolen == []


def test_a_model_the_server_does_not_have_is_named_with_those_it_has():
    with (
        answering((404, "no such model"), (200, {"data": [{"id": "small"}, {"id": "large"}]})) as (url, _),
        pytest.raises(StatusError, match="asked for 'judge', the server has small, large"),
    ):
        OpenAIEndpoint(url, "judge").complete(["a"])


@pytest.mark.parametrize("answer", [{}, [], {"choices": []}, said(None)])
def test_an_answer_without_a_text_is_refused(answer):
    with answering((200, answer)) as (url, _), pytest.raises(ValueError, match="message.content"):
        OpenAIEndpoint(url, "judge").complete(["a"])


def test_one_text_is_no_list():
    with pytest.raises(TypeError, match=r"write \[prompt\]"):
        OpenAIEndpoint("http://localhost:1", "judge").complete("a")


def test_at_most_so_many_requests_run_at_once():
    running, most, lock, both = 0, 0, threading.Lock(), threading.Barrier(2, timeout=10)

    def meet():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait()  # each request waits for a second one
        with lock:
            running -= 1
        return 200, said("x")

    with answering(meet) as (url, _):
        assert OpenAIEndpoint(url, "judge", concurrency=2).complete(["a"] * 6) == ["x"] * 6
    assert most == 2
