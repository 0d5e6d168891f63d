"""A tiny model and classifier in a directory, and one config per method."""

import pytest

import trellis
from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A directory with `policy` and `reward`, as a user has them."""
    place = tmp_path_factory.mktemp("models")
    tokenizer = tiny_tokenizer()
    parts = {"policy": tiny_model("llama", tokenizer), "reward": tiny_classifier("llama", tokenizer)}
    for name, model in parts.items():
        for part in (model, tokenizer):
            part.save_pretrained(str(place / name))
    return place


@pytest.fixture(scope="session")
def configs(tmp_path_factory):
    """method → its config, with changes."""
    place = str(tmp_path_factory.mktemp("out"))

    def config(method, **changes):
        name = "Reward" if method == "reward" else method.upper()
        return getattr(trellis, f"{name}Config")(output_dir=place, use_cpu=True, **changes)

    return config
