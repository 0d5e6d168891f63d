"""Chat completions of any OpenAI-compatible server: for judges and for data that another model writes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .http import Clock, Http, StatusError

Chat = Sequence[dict[str, Any]]


class OpenAIEndpoint:
    """The model `model` of the server at `base_url` (with its /v1): `transformers serve`, `vllm serve`, llama.cpp, a hosted one.

    api_key_env names the environment variable that holds the key, which is read at each request and shown nowhere. Each request
    has `timeout` seconds and at most `tries` attempts; `concurrency` of them run at once.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key_env: str | None = "OPENAI_API_KEY",
        timeout: float = 120.0,
        tries: int = 5,
        concurrency: int = 8,
        clock: Clock | None = None,
    ) -> None:
        if min(tries, concurrency) < 1 or timeout <= 0:
            raise ValueError(
                f"tries and concurrency must be at least 1 and timeout above 0, found {tries}, {concurrency} and {timeout}"
            )
        self.model, self.timeout, self.concurrency = model, timeout, concurrency
        self.http = Http(
            base_url, key_env=api_key_env, tries=tries, advice="is the server running there?", clock=clock
        )

    def __repr__(self) -> str:
        return f"OpenAIEndpoint({self.http.base_url!r}, {self.model!r})"

    def complete(self, prompts: Sequence[str | Chat], **options: Any) -> list[str]:
        """The answer to each prompt, a text or a list of messages, in their order.

        `options` are the request's own: max_tokens, temperature, seed, … Raises ConnectionError, TimeoutError or ValueError at
        the first prompt that gets no answer; those not yet sent are then not sent.
        """
        return [choice["message"]["content"] for choice in self.choices(prompts, **options)]

    def choices(self, prompts: Sequence[str | Chat], **options: Any) -> list[dict[str, Any]]:
        """As `complete`, with what the server says beside the text of each answer (`finish_reason`, `logprobs`)."""
        if isinstance(prompts, str):
            raise TypeError("prompts must be a list of texts or chats, found one text; write [prompt]")
        with ThreadPoolExecutor(self.concurrency, thread_name_prefix="endpoint") as pool:
            asked = [pool.submit(self._one, prompt, options) for prompt in prompts]
            try:
                return [answer.result() for answer in asked]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _one(self, prompt: str | Chat, options: dict[str, Any]) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        body = {"model": self.model, "messages": messages, **options}
        try:
            answer = self.http.call("/chat/completions", body, timeout=self.timeout)
        except StatusError as error:
            raise StatusError(f"{error}{self._advice(error.status)}", error.status) from None
        if _text(answer) is None:
            raise ValueError(
                f"{self.http.base_url} answered {str(answer)[:200]!r}, expected choices[0].message.content with a text"
            )
        return answer["choices"][0]

    def _advice(self, status: int) -> str:
        if status in (401, 403):
            name = self.http.key_env
            return (
                f"; set the environment variable {name} to the server's key" if name else "; it needs a key"
            )
        if status == 404:
            return self._models()
        return ""

    def _models(self) -> str:
        """Which models there are, where the server says so."""
        try:
            listed = self.http.call("/models", timeout=self.timeout)
            names = [str(model["id"]) for model in listed["data"]]
        except (OSError, ValueError, TypeError, KeyError):
            return f"; is {self.http.base_url} the address with its /v1?"
        return f"; asked for {self.model!r}, the server has {', '.join(names[:10])}"


def _text(answer: Any) -> str | None:
    try:
        text = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return None
    return text if isinstance(text, str) else None
