"""`trellis vllm-serve`: an engine in a process of its own, asked over HTTP. The paths are those of TRL's server.

One thread does everything that touches the engine, in the order in which it was asked.
"""

from __future__ import annotations

import hmac
import itertools
import json
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Unfinished
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .vllm_host import VllmHost
from .wire import KEY_ENV, PROTOCOL

logger = logging.getLogger(__name__)
LARGEST = 1 << 30
"""The longest request that is read, in bytes."""


class Refused(ValueError):
    """A request that is wrong. `status`: its HTTP status."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class EngineServer:
    """Answers for the engine that `build` makes. `key`: what a request must bring (None: nothing); port 0: any free one."""

    def __init__(
        self,
        build: Callable[[], VllmHost],
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        key: str | None = None,
    ) -> None:
        self.work = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self.engine = self.work.submit(build).result()
        self.facts = self.work.submit(self.engine.facts).result()
        self.key, self.version = key, None
        self.jobs: dict[int, Future[Any]] = {}
        self._numbers = itertools.count(1)
        self.http = _Http((host, port), self)
        self.routes: dict[tuple[str, str], Callable[[dict[str, Any]], dict[str, Any]]] = {
            ("GET", "/health"): lambda _: {"status": "ok"},
            ("GET", "/get_world_size"): lambda _: {"world_size": len(self.facts["devices"])},
            ("GET", "/identity"): self.identity,
            ("POST", "/generate"): self.generate,
            ("POST", "/init_communicator"): self.init_communicator,
            ("POST", "/update_named_param"): self.update_named_param,
            ("POST", "/update_weights"): self.update_weights,
            ("POST", "/wait"): self.wait,
            ("POST", "/reset_prefix_cache"): self.reset_prefix_cache,
            ("POST", "/close_communicator"): self.close_communicator,
        }

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.http.server_address[1]

    def serve(self) -> None:
        """Answer until `close` is called."""
        self.http.serve_forever(poll_interval=0.05)

    def close(self) -> None:
        """Stop answering."""
        self.http.shutdown()
        self.http.server_close()
        self.work.shutdown(wait=False, cancel_futures=True)

    def identity(self, _: dict[str, Any]) -> dict[str, Any]:
        """Which model this is, and which weights it has."""
        return {**self.facts, "protocol": PROTOCOL, "weight_version": self.version}

    def generate(self, body: dict[str, Any]) -> dict[str, Any]:
        """Completions of prompts."""
        for name, kind in (("prompts", list), ("n", int), ("max_tokens", int)):
            if not isinstance(body.get(name), kind):
                raise Refused(f"{name} must be a {kind.__name__}, found {body.get(name)!r}")
        if body["prompts"] and not isinstance(body["prompts"][0], list):
            raise Refused(
                "prompts must be lists of token ids: the trainer's tokenizer decides, not the server's"
            )
        rows, version = self.work.submit(lambda: (self.engine.generate(body), self.version)).result()
        return {
            "prompt_ids": body["prompts"],
            "completion_ids": [ids for ids, _ in rows],
            "logprobs": [logps for _, logps in rows],
            "weight_version": version,
        }

    def init_communicator(self, body: dict[str, Any]) -> dict[str, Any]:
        """Meet a trainer at host:port, to take over weights."""
        theirs = body.get("client_device_uuid") or ""
        if theirs and theirs in self.facts["devices"]:
            raise Refused(
                "trainer and server are on the same GPU, and weights travel between different ones; start one of them with "
                "another CUDA_VISIBLE_DEVICES, or train with vllm_mode='colocate'"
            )
        world = len(self.facts["devices"]) + 1
        limit = float(body.get("timeout", 240.0))
        self.work.submit(self.engine.call, "trellis_listen", int(body["port"]), limit).result()
        return self._job("trellis_open", body["host"], int(body["port"]), world, limit)

    def update_weights(self, body: dict[str, Any]) -> dict[str, Any]:
        """Take over the parameters in `manifest`, which the trainer now sends; they make the weights `version`."""
        manifest = [(p["name"], p["dtype"].split(".")[-1], list(p["shape"])) for p in body["parameters"]]
        self.version = None  # neither the old weights nor yet the new ones
        return self._job("trellis_receive", manifest, version=body["version"])

    def update_named_param(self, body: dict[str, Any]) -> dict[str, Any]:
        """Take over one parameter."""
        return self.update_weights({"parameters": [body], "version": body.get("version")})

    def wait(self, body: dict[str, Any]) -> dict[str, Any]:
        """What became of a job; {"done": false} where it is still running after `timeout` seconds."""
        job = self.jobs.get(body["job"])
        if job is None:
            raise Refused(f"there is no job {body['job']}; was the server restarted?", 404)
        try:
            job.result(timeout=float(body.get("timeout", 10.0)))
        except Unfinished:
            if not job.done():
                return {"done": False}
            raise
        self.jobs.pop(body["job"], None)
        return {"done": True, "weight_version": self.version}

    def reset_prefix_cache(self, _: dict[str, Any]) -> dict[str, Any]:
        """Forget what was computed with earlier weights."""
        self.work.submit(self.engine.forget).result()
        return {"message": "prefix cache reset"}

    def close_communicator(self, _: dict[str, Any]) -> dict[str, Any]:
        """Part from the trainer."""
        self.work.submit(self.engine.call, "trellis_close").result()
        return {"message": "communicator closed"}

    def _job(self, method: str, *args: Any, version: Any = None) -> dict[str, Any]:
        """Start `method` on the workers, without waiting for it."""

        def run() -> None:
            self.engine.call(method, *args)
            if version is not None:
                self.engine.forget()
                self.version = version

        number = next(self._numbers)
        self.jobs[number] = self.work.submit(run)
        return {"message": "started", "job": number}


class _Http(ThreadingHTTPServer):
    """Listens for an EngineServer."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], owner: EngineServer) -> None:
        self.owner = owner
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: _Http
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        if self._admitted():
            self._reply(*self._answer({}))

    def do_POST(self) -> None:
        if not self._admitted():  # before anything of it is read
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > LARGEST:
            self.close_connection = True
            self._reply(400, {"error": f"Content-Length must be 0 … {LARGEST}, found {length!r}"})
            return
        try:
            body = json.loads(self.rfile.read(int(length)) or b"{}")
        except ValueError as error:
            self._reply(400, {"error": f"the request is not JSON: {error}"})
            return
        self._reply(*self._answer(body if isinstance(body, dict) else {}))

    def _admitted(self) -> bool:
        brought, needed = self.headers.get("Authorization", ""), f"Bearer {self.server.owner.key}"
        if self.server.owner.key is None or hmac.compare_digest(brought.encode(), needed.encode()):
            return True
        self.close_connection = True
        self._reply(
            401, {"error": f"wrong or no key; the environment variable {KEY_ENV} holds it, on both sides"}
        )
        return False

    def _answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        route = self.server.owner.routes.get((self.command, self.path.rstrip("/")))
        if route is None:
            return 404, {"error": f"there is no {self.command} {self.path}"}
        try:
            return 200, route(body)
        except Refused as error:
            return error.status, {"error": str(error)}
        except KeyError as error:
            return 400, {"error": f"the request has no {error}"}
        except Exception as error:  # whatever the engine raises is the asker's to read
            logger.exception("%s failed", self.path)
            return 500, {"error": f"{type(error).__name__}: {error}"}

    def _reply(self, status: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)
