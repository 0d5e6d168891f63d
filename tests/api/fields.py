"""The fields that Trellis itself declares, per public config."""

from __future__ import annotations

import dataclasses

import trellis

CONFIGS = ("SFTConfig", "RewardConfig", "PPOConfig", "ModelConfig", "ScriptArguments", "DatasetMixtureConfig")


def own_fields(cls: type) -> list[dataclasses.Field]:
    """The dataclass fields of `cls` that a class of ours declares or overrides (not those inherited unchanged)."""
    names = {
        name
        for base in cls.__mro__
        if base.__module__.startswith("trellis.")
        for name in base.__dict__.get("__annotations__", {})
    }
    return [f for f in dataclasses.fields(cls) if f.name in names]


def all_own_fields() -> list[tuple[str, dataclasses.Field]]:
    """(config name, field) of everything that the public configs declare."""
    return [(name, field) for name in CONFIGS for field in own_fields(getattr(trellis, name))]
