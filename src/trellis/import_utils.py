"""Which optional packages are installed, by the names that existing scripts ask with."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec


def _installed(package: str) -> bool:
    return find_spec(package) is not None


is_deepspeed_available = partial(_installed, "deepspeed")
is_fastapi_available = partial(_installed, "fastapi")
is_jmespath_available = partial(_installed, "jmespath")
is_joblib_available = partial(_installed, "joblib")
is_llm_blender_available = partial(_installed, "llm_blender")
is_math_verify_available = partial(_installed, "math_verify")
is_mergekit_available = partial(_installed, "mergekit")
is_peft_available = partial(_installed, "peft")
is_pydantic_available = partial(_installed, "pydantic")
is_requests_available = partial(_installed, "requests")
is_rich_available = partial(_installed, "rich")
is_unsloth_available = partial(_installed, "unsloth")
is_uvicorn_available = partial(_installed, "uvicorn")
is_vllm_available = partial(_installed, "vllm")
is_weave_available = partial(_installed, "weave")
