"""A trainer's own state and its arguments: exact, plain, and without secrets."""

import dataclasses
import json
import math
from enum import Enum
from pathlib import Path

import pytest
import torch

from trellis import checkpoint


def test_state_comes_back_to_the_bit(tmp_path):
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(4, 6, generator=generator)
    tensors = {
        "float": base,
        "view": base[:, 2:],
        "shared": base.view(-1),
        "half": base.bfloat16(),
        "double": base.double() / 3,
        "mask": base > 0,
        "ids": torch.tensor([2**62, -1]),
        "empty": torch.zeros(0, 5),
        "scalar": torch.tensor(1.5),
        "rng": generator.get_state(),
        "grad": torch.ones(2, requires_grad=True),
    }
    plain = {"kl": 0.1 + 0.2, "n": 3, "nan": math.nan, "none": None, "nested": {"a": [1, 2.5, "x", True]}}
    checkpoint.save_state(tmp_path / "trellis-0", tensors, plain)
    loaded, read = checkpoint.load_state(tmp_path / "trellis-0")
    assert loaded.keys() == tensors.keys()
    for name, value in tensors.items():
        assert loaded[name].dtype == value.dtype
        assert torch.equal(loaded[name], value), name
    assert math.isnan(read.pop("nan"))
    assert plain.pop("nan") is not None
    assert read == plain
    assert not any(p.suffix in (".bin", ".pt", ".pkl") for p in tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"a": {1: "x"}}, "a has the key 1; JSON keys are strings"),
        ({"a": [0, (1, 2)]}, r"a\[1\] is a tuple"),
        ({"a": {"b": torch.zeros(1)}}, r"a\['b'\] is a Tensor"),
    ],
)
def test_what_json_would_change_is_refused(tmp_path, plain, message):
    with pytest.raises(TypeError, match=message):
        checkpoint.save_state(tmp_path, {}, plain)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_without_state_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"has no trellis_state.safetensors and no trellis_state.json"):
        checkpoint.load_state(tmp_path)


class Strategy(Enum):
    """Stands for the enumerations in training arguments."""

    STEPS = "steps"


@dataclasses.dataclass
class Arguments:
    """Names with and without secrets in them."""

    hub_token: str | None = "hf_" + "a" * 30
    api_key: str = "topsecretkey"
    wandb_password: str = "topsecretword"
    eos_token: str = "<|im_end|>"
    stop_token: str = "eos"
    key_count: int = 3
    model_init_kwargs: dict = dataclasses.field(default_factory=lambda: {"token": "topsecretnested", "n": 1})
    hub: str = "https://me:topsecreturl@hub.example/x"
    command: tuple = ("--token", "hf_" + "b" * 30)
    save_strategy: Strategy = Strategy.STEPS
    output_dir: Path = Path("out")
    learning_rate: float = 1e-5
    dtype: object = torch.float32

    def __post_init__(self):
        self.not_a_field = "topsecretattribute"


def test_arguments_are_readable_and_hold_no_secret(tmp_path):
    checkpoint.write_args_json(tmp_path, Arguments())
    text = (tmp_path / checkpoint.ARGS_FILE).read_text()
    assert "topsecret" not in text
    assert "aaaaaa" not in text
    assert "bbbbbb" not in text
    read = json.loads(text)
    assert read["hub_token"] == read["api_key"] == read["model_init_kwargs"]["token"] == "<redacted>"
    assert read["eos_token"] == "<|im_end|>"
    assert read["stop_token"] == "eos"
    assert read["key_count"] == 3
    assert read["learning_rate"] == 1e-5
    assert read["save_strategy"] == "steps"
    assert read["output_dir"] == "out"
    assert read["dtype"] == "torch.float32"


def test_the_rest_of_the_arguments_is_kept(tmp_path):
    checkpoint.write_args_json(tmp_path, Arguments(hub_token=None))
    assert json.loads((tmp_path / checkpoint.ARGS_FILE).read_text())["hub_token"] is None


def test_weights_of_another_model_are_refused():
    tied = torch.nn.ModuleDict({"embed": torch.nn.Embedding(5, 3), "head": torch.nn.Linear(3, 5, bias=False)})
    tied["head"].weight = tied["embed"].weight
    checkpoint.check_loaded(tied, ["head.weight"], [])
    with pytest.raises(ValueError, match=r"lacks \['head.weight', 'embed.weight'\] and has nothing too many"):
        checkpoint.check_loaded(tied, ["head.weight", "embed.weight"], [])
    with pytest.raises(ValueError, match=r"lacks nothing and has \['score.weight'\] too many"):
        checkpoint.check_loaded(tied, [], ["score.weight"])


def test_saved_weights_can_be_read_like_any_file(tmp_path):
    (tmp_path / "critic").mkdir()
    for name in ("model.safetensors", "critic/value_head.safetensors"):
        (tmp_path / name).touch(mode=0o600)
    checkpoint.seal(tmp_path, {"hub_token": "hf_abc"})
    plain = (tmp_path / "training_args.json").stat().st_mode
    assert all(path.stat().st_mode == plain for path in tmp_path.rglob("*.safetensors"))
    assert "hf_abc" not in (tmp_path / "training_args.json").read_text()
