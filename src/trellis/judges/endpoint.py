"""Judges behind an OpenAI-compatible server: a hosted model, or one that a program on this machine serves."""

from __future__ import annotations

import logging
import math
import os
from typing import Any
from urllib.parse import urlsplit

from ..engines import OpenAIEndpoint
from ..engines.http import checked_url, is_loopback
from .pairwise import Asked, OrderedJudge
from .question import asked as question_about
from .question import checked_question

logger = logging.getLogger(__name__)
OPENAI = "https://api.openai.com/v1"
HUGGING_FACE = "https://router.huggingface.co/v1"


class EndpointJudge(OrderedJudge):
    """Asks `endpoint` for one token, "0" or "1"; any other answer is invalid.

    `max_requests` (None: no limit) is counted over all calls: what would be beyond it is not asked, and −1. logprobs: the server
    is asked for the probabilities of its answer (OpenAI's `top_logprobs`), which then are the scores; without them scores are 0
    and 1.
    """

    def __init__(
        self,
        endpoint: OpenAIEndpoint,
        system_prompt: str | None = None,
        max_requests: int | None = None,
        *,
        both_orders: bool = False,
        logprobs: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(both_orders=both_orders, seed=seed)
        self.endpoint, self.model = endpoint, endpoint.model
        self.system_prompt = checked_question(system_prompt)
        self.max_requests, self.num_requests = max_requests, 0
        self.options: dict[str, Any] = {"max_tokens": 1, "temperature": 0}
        if logprobs:
            self.options |= {"logprobs": True, "top_logprobs": 5}
        self._warned = False

    def ask(self, asked: Asked) -> list[float | None]:
        """See `OrderedJudge`. Raises ConnectionError or TimeoutError where the server cannot be asked."""
        allowed = len(asked) if self.max_requests is None else max(0, self.max_requests - self.num_requests)
        if self.both_orders:
            allowed -= allowed % 2
        sent = asked[:allowed]
        if len(sent) < len(asked):
            self._say_so(len(asked) - len(sent))
        self.num_requests += len(sent)
        texts = [question_about(self.system_prompt, *triple) for triple in sent]
        choices = self.endpoint.choices(texts, **self.options)
        return [_score(choice) for choice in choices] + [None] * (len(asked) - len(sent))

    def _say_so(self, left: int) -> None:
        if not self._warned:
            logger.warning(
                "the judge has used its %s requests: %d questions are not asked and count as invalid (-1), as will all that "
                "follow; raise max_requests, or write max_requests=None for no limit",
                self.max_requests, left,
            )  # fmt: skip
        self._warned = True


class OpenAIPairwiseJudge(EndpointJudge):
    """A model of OpenAI's, or of the OpenAI-compatible server at `base_url` (default: what OPENAI_BASE_URL says, else OpenAI's).

    The key is read from the environment variable `api_key_env` at each request; a server on this machine needs none. Raises
    ValueError for an address that is neither https nor this machine, and without a key for OpenAI's own.
    """

    def __init__(
        self,
        model: str = "gpt-4-turbo-preview",
        system_prompt: str | None = None,
        max_requests: int | None = 1_000,
        *,
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        **options: Any,
    ) -> None:
        url = safe_url(base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI)
        if url == OPENAI and not os.environ.get(api_key_env, "").strip():
            raise ValueError(
                f"judge {model!r} needs a key: set the environment variable {api_key_env}, or name another server by base_url="
            )
        super().__init__(
            OpenAIEndpoint(url, model, api_key_env=api_key_env), system_prompt, max_requests, **options
        )


class HfPairwiseJudge(EndpointJudge):
    """A model behind Hugging Face's inference providers. `token` is by default what HF_TOKEN or `hf auth login` left."""

    def __init__(
        self,
        model: str = "meta-llama/Meta-Llama-3-70B-Instruct",
        token: str | None = None,
        system_prompt: str | None = None,
        *,
        base_url: str = HUGGING_FACE,
        **options: Any,
    ) -> None:
        from huggingface_hub import get_token

        endpoint = OpenAIEndpoint(safe_url(base_url), model, api_key_env="HF_TOKEN")
        endpoint.http.key = token or get_token()
        if endpoint.http.key is None and base_url == HUGGING_FACE:
            raise ValueError(f"the judge {model!r} needs a token: set HF_TOKEN, or write: hf auth login")
        super().__init__(endpoint, system_prompt, **options)


def safe_url(url: str) -> str:
    """`url`, to which a key may be sent. Raises ValueError where others could read it on its way."""
    url = checked_url(url)
    parts = urlsplit(url)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise ValueError(
            f"a judge's address must begin with https://, or be on this machine (http://localhost:8000/v1); found {url!r}"
        )
    return url


def _score(choice: dict[str, Any]) -> float | None:
    """The probability of "0" against "1" as a server's first token; 1 or 0 where it sends a text alone; None for another text."""
    text = str(choice["message"]["content"]).strip()
    if text not in ("0", "1"):
        logger.debug("the judge answered %r, expected 0 or 1", text)
        return None
    weights = {"0": 0.0, "1": 0.0}
    for name, logprob in _top(choice):
        if name.strip() in weights:
            weights[name.strip()] += math.exp(logprob)
    total = sum(weights.values())
    return weights["0"] / total if total else float(text == "0")


def _top(choice: dict[str, Any]) -> list[tuple[str, float]]:
    try:
        tops = choice["logprobs"]["content"][0]["top_logprobs"]
        return [(str(top["token"]), float(top["logprob"])) for top in tops]
    except (KeyError, IndexError, TypeError):
        return []
