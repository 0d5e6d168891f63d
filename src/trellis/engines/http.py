"""JSON over HTTP, with a deadline, bounded retries and errors that say what to do. Nothing here waits for ever."""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

logger = logging.getLogger(__name__)
BUSY = frozenset({429, 502, 503, 504})
"""Statuses that may pass: the request is sent again."""
CHUNK = 1 << 16
SHOWN = 300
"""How much of a server's answer an error shows, in characters."""


@dataclass(frozen=True)
class Clock:
    """What tells the time, in seconds, and what waits."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class StatusError(ConnectionError):
    """The server answered, with an error. `status`: the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _Again(Exception):
    """This attempt failed in a way that may pass."""


class Http:
    """A JSON server at `base_url`. `key_env` names the environment variable that holds its key (sent as a bearer token, never
    shown); `tries` bounds the attempts per call (None: the deadline alone does); `advice`: how the server is started."""

    def __init__(
        self,
        base_url: str,
        *,
        key_env: str | None = None,
        tries: int | None = None,
        advice: str = "",
        clock: Clock | None = None,
    ) -> None:
        self.base_url = checked_url(base_url)
        self.key_env, self.tries, self.advice = key_env, tries, advice
        self.key: str | None = None  # of a caller who holds it; else the environment is read
        self.clock = clock or Clock()
        # A proxy for the world outside does not know this machine's own servers.
        proxies = urllib.request.ProxyHandler({} if is_loopback(self.host) else None)
        self._opener = urllib.request.build_opener(proxies, _NoRedirect)

    @property
    def host(self) -> str:
        """The server's host name or address."""
        return urlsplit(self.base_url).hostname or ""

    def __repr__(self) -> str:
        return f"Http({self.base_url!r})"

    def call(self, path: str, body: Any = None, *, timeout: float, again: bool = True) -> Any:
        """The answer to `body` (POST; GET without one), within `timeout` seconds, retries and their pauses included.

        again: a request that may have arrived may be sent once more. Raises ConnectionError where no server answers or it answers
        with an error (StatusError), TimeoutError after the deadline, ValueError where the answer is not JSON.
        """
        started = self.clock.now()
        deadline, last, pauses = started + timeout, "nothing was heard", _pauses()
        attempt = 0
        while self.tries is None or attempt < self.tries:
            attempt += 1
            try:
                return self._attempt(path, body, deadline, again)
            except _Again as error:
                last = str(error)
            pause = next(pauses)
            if self.clock.now() + pause >= deadline:
                break
            if attempt == 1:
                logger.warning("%s: %s; trying again for up to %.0f s", self.base_url, last, timeout)
            if attempt != self.tries:
                self.clock.sleep(pause)
        spent = self.clock.now() - started
        raise ConnectionError(
            f"no usable answer from {self.base_url}{path}: {last} ({attempt} attempts in {spent:.0f} s){self._hint()}"
        )

    def _attempt(self, path: str, body: Any, deadline: float, again: bool) -> Any:
        url, data = self.base_url + path, None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, headers=self._headers())
        try:
            with self._opener.open(request, timeout=max(0.01, deadline - self.clock.now())) as response:
                return _json(self._read(response, deadline), url)
        except urllib.error.HTTPError as error:
            with error:
                said = self._redacted(error.read(CHUNK).decode(errors="replace"))[:SHOWN].strip()
            if error.code in BUSY:
                raise _Again(f"status {error.code} {said}") from None
            raise StatusError(
                f"{url} answered with status {error.code}: {said or error.reason}", error.code
            ) from None
        except TimeoutError:
            raise self._late(url) from None
        except (urllib.error.URLError, OSError, EOFError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise self._late(url) from None
            if not (again or isinstance(reason, ConnectionRefusedError)):
                raise ConnectionError(f"{url}: the connection broke ({reason}){self._hint()}") from None
            raise _Again(f"{type(reason).__name__}: {reason}") from None

    def _read(self, response: Any, deadline: float) -> bytes:
        parts, size = [], 0
        while part := response.read1(CHUNK):
            parts.append(part)
            size += len(part)
            if self.clock.now() > deadline:
                raise TimeoutError
        expected = response.headers.get("Content-Length")
        if expected is not None and size < int(expected):
            raise EOFError(f"the answer broke off after {size} of {expected} bytes")
        return b"".join(parts)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        key = self._key()
        return {**headers, "Authorization": f"Bearer {key}"} if key else headers

    def _key(self) -> str:
        if self.key:
            return self.key
        return os.environ.get(self.key_env, "").strip() if self.key_env else ""

    def _redacted(self, text: str) -> str:
        key = self._key()
        return text.replace(key, "***") if key else text

    def _hint(self) -> str:
        return f"; {self.advice}" if self.advice else ""

    def _late(self, url: str) -> TimeoutError:
        return TimeoutError(f"{url} did not answer in time{self._hint()}; or allow it more time")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A key must not follow a redirect to somewhere else."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def checked_url(url: str) -> str:
    """`url` without its last slash. Raises ValueError for what is not http(s)://host…, or holds a password."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"a server's address looks like http://HOST:PORT, found {url!r}")
    if parts.username or parts.password:
        raise ValueError(
            f"the address of {parts.hostname} holds a user name or password, which would end up in logs; put the key into an "
            "environment variable"
        )
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine, reachable from nowhere else (0.0.0.0 as an address to connect to is this machine)."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def _pauses() -> Iterator[float]:
    pause = 0.5
    while True:
        yield pause
        pause = min(8.0, 2 * pause)


def _json(body: bytes, url: str) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        shown = body[:SHOWN].decode(errors="replace").strip()
        raise ValueError(
            f"{url} answered {shown!r}, expected JSON: is another program listening there?"
        ) from None
