"""The engine that samples on other GPUs: `trellis vllm-serve`, asked over HTTP, sent every new weight."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from ..rollout import Completion, SamplingParams
from .channel import Channel, device_id
from .http import Clock, Http, StatusError
from .ranks import Ask, Together, merged, on_first
from .weights import Weight, weights_of
from .wire import KEY_ENV, PROTOCOL, check_prompts, completions, config_of, request, shape_of

logger = logging.getLogger(__name__)
ADVICE = "start it, on other GPUs than the training's, with: trellis vllm-serve --model MODEL"


class VllmServer:
    """Samples through the server at `base_url`. Every request has `timeout` seconds, retries included.

    group_port: where the server's workers listen for weights; regex: what completions must match. Of several processes, rank 0
    talks to the server; inside `together()` it asks for all of them at once, elsewhere each asks for itself. The server's key,
    where it has one, is read from the environment variable TRELLIS_VLLM_KEY.
    """

    exact = False
    apart = True

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float = 240.0,
        group_port: int = 51216,
        regex: str | None = None,
        accelerator: Any = None,
        clock: Clock | None = None,
    ) -> None:
        if timeout <= 0:
            raise ValueError(f"the server's timeout must be above 0 seconds, found {timeout}")
        self.http = Http(base_url, key_env=KEY_ENV, advice=ADVICE, clock=clock)
        self.timeout, self.group_port, self.regex = timeout, group_port, regex
        self.world = 1 if accelerator is None else accelerator.num_processes
        self.facts: dict[str, Any] | None = None
        self.step: int | None = None
        self.version: str | None = None
        self._run = uuid.uuid4().hex
        self._channel: Channel | None = None
        self._together = Together(self._sample_all)

    def check(self, model: nn.Module) -> dict[str, Any]:
        """Who the server is. ConnectionError or TimeoutError where there is none, ValueError where its model is another."""
        if self.facts is None:
            self.facts = on_first(lambda: self._identify(model), self.world)
        return self.facts

    def sync(self, model: nn.Module, step: int) -> None:
        """Send the weights of `model` unless the server has those of `step`; every rank returns when it has taken them over."""
        if step == self.step:
            return
        self.check(model)
        self.version = on_first(lambda: self._send(model, step), self.world)
        self.step = step

    def __call__(
        self, prompts: Sequence[Sequence[int]], params: SamplingParams, *, n: int = 1, seeds: Sequence[int]
    ) -> list[Completion]:
        """See `rollout.Sampler`; both kinds of log-probabilities are those after temperature and filters."""
        ask = Ask(prompts, params, n, seeds)
        return self._together.ask(ask) or [] if self._together.open else self._sample(ask)

    def together(self) -> AbstractContextManager[None]:
        """Inside this block all ranks' calls are one request; every rank enters and leaves it, whatever it asks inside."""
        return self._together.rounds() if self.world > 1 else nullcontext()

    def close(self) -> None:
        """Part from the server, which stays as it is."""
        self.step = None
        if self._channel is None:
            return
        self._channel.close()
        self._channel = None
        try:
            self.http.call("/close_communicator/", {}, timeout=min(self.timeout, 5.0))
        except (OSError, ValueError) as error:
            logger.warning("the server was not told that training has ended: %s", error)

    def _identify(self, model: nn.Module) -> dict[str, Any]:
        try:
            facts = self.http.call("/identity/", timeout=self.timeout)
        except StatusError as error:
            if error.status != 404:
                raise
            raise ValueError(f"{self.http.base_url} is another kind of server ({error}); {ADVICE}") from None
        if not isinstance(facts, dict) or facts.get("protocol") != PROTOCOL:
            raise ValueError(
                f"{self.http.base_url} speaks another protocol than this trellis ({PROTOCOL}); {ADVICE}, from the same version"
            )
        config = config_of(model)
        ours, theirs = shape_of(config), facts["shape"]
        if ours != theirs:
            differ = ", ".join(f"{k} {theirs.get(k)} for {v}" for k, v in ours.items() if theirs.get(k) != v)
            raise ValueError(
                f"the server at {self.http.base_url} has another model: {facts['model']!r} with {differ}, the trained one is "
                f"{config.name_or_path!r}; start it with: trellis vllm-serve --model {config.name_or_path or 'MODEL'}"
            )
        return facts

    def _send(self, model: nn.Module, step: int) -> str:
        facts = self.check(model)
        weights, version = weights_of(model), f"{self._run}:{step}"
        channel = self._channel or self._connect(next(model.parameters()).device, facts)
        dtype = getattr(torch, facts["dtype"])
        body = {
            "version": version,
            "parameters": [{"name": w.name, "dtype": facts["dtype"], "shape": w.shape} for w in weights],
        }
        job = self.http.call("/update_weights/", body, timeout=self.timeout, again=False)["job"]
        try:
            self._broadcast(channel, weights, dtype)
        except RuntimeError as error:
            self._channel = None
            self._wait(job)  # says what the server saw, if it saw anything
            raise ConnectionError(
                f"sending weights to {self.http.base_url} broke: {str(error).splitlines()[0]}"
            ) from error
        found = self._wait(job)
        if found != version:
            raise ValueError(
                f"the server at {self.http.base_url} has weights {found!r} after it was sent {version!r}: does another run use "
                "it too? Start one server per run"
            )
        return version

    def _broadcast(self, channel: Channel, weights: list[Weight], dtype: torch.dtype) -> None:
        # Folding an adapter in is no part of the training's autocast.
        with torch.no_grad(), torch.autocast(channel.device.type, enabled=False):
            for weight in weights:
                channel.broadcast(weight.read().to(channel.device, dtype).contiguous(), channel.rank)

    def _connect(self, device: torch.device, facts: dict[str, Any]) -> Channel:
        workers = facts["devices"]
        mine = device_id(device)
        if bool(mine) != bool(workers[0]):
            raise ValueError(
                f"training runs on {device.type} and the server {'on a GPU' if workers[0] else 'on the CPU'}: weights travel "
                "only between devices of one kind"
            )
        body = {
            "host": "localhost",  # where the workers find the first of them
            "port": self.group_port,
            "world_size": len(workers) + 1,
            "client_device_uuid": mine,
            "timeout": self.timeout,
        }
        job = self.http.call("/init_communicator/", body, timeout=self.timeout, again=False)["job"]
        meeting = (self.http.host, self.group_port)
        try:
            channel = Channel(
                *meeting, rank=len(workers), world=len(workers) + 1, device=device, timeout=self.timeout
            )
        except ConnectionError:
            self._wait(job)
            raise
        self._wait(job)
        self._channel = channel
        return channel

    def _wait(self, job: int) -> Any:
        """The server's weight version once `job` is done. Raises what went wrong there."""
        deadline = self.http.clock.now() + self.timeout
        while (left := deadline - self.http.clock.now()) > 0:
            body = {"job": job, "timeout": min(10.0, left / 2)}
            answer = self.http.call("/wait/", body, timeout=left)
            if answer.get("done"):
                return answer.get("weight_version")
        raise TimeoutError(
            f"the server at {self.http.base_url} did not take over the weights in {self.timeout:.0f} s; raise vllm_server_timeout"
        )

    def _sample_all(self, asks: list[Ask]) -> list[list[Completion]]:
        return on_first(lambda: merged(asks, self._sample), self.world)

    def _sample(self, ask: Ask) -> list[Completion]:
        if not ask.prompts:
            return []
        if self.facts is None or self.version is None:
            raise ValueError("this engine has no weights yet; call sync(model, step) before sampling")
        vocabulary = self.facts["shape"]["vocab_size"]
        check_prompts(ask.prompts, ask.params, vocabulary=vocabulary, room=self.facts["max_model_len"])
        body = request(ask.prompts, ask.params, n=ask.n, seeds=ask.seeds, regex=self.regex)
        answer = self.http.call("/generate/", body, timeout=self.timeout)
        found = completions(
            answer, ask.params, rows=ask.rows, vocabulary=vocabulary, source=self.http.base_url
        )
        if answer.get("weight_version") != self.version:
            raise ValueError(
                f"the server at {self.http.base_url} sampled with weights {answer.get('weight_version')!r} instead of "
                f"{self.version!r}: it was restarted, or another run uses it too. Resume from the last checkpoint, with a server "
                "of its own"
            )
        return found
