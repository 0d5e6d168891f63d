"""Engines beside the policy's own process: vLLM as a server or on the training's GPUs, and endpoints of other models."""

from .choose import check_fields, engine_for
from .endpoint import OpenAIEndpoint
from .http import Clock, Http, StatusError, is_loopback
from .process import ProcessEngine
from .server import EngineServer
from .several import Several
from .vllm_colocate import VllmColocate
from .vllm_host import VllmHost, require_vllm
from .vllm_server import VllmServer
from .weights import Weight, weights_of
from .wire import KEY_ENV

__all__ = [
    "KEY_ENV",
    "Clock",
    "EngineServer",
    "Http",
    "OpenAIEndpoint",
    "ProcessEngine",
    "Several",
    "StatusError",
    "VllmColocate",
    "VllmHost",
    "VllmServer",
    "Weight",
    "check_fields",
    "engine_for",
    "is_loopback",
    "require_vllm",
    "weights_of",
]
