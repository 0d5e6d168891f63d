"""A model as a loop of one's own generates with it."""

import torch

from tests.builders import tiny_model
from trellis.models.utils import unwrap_model_for_generation


def test_a_wrapped_model_generates_as_it_is_and_recomputes_again_afterwards():
    model = tiny_model("llama").train()
    layers = [m for m in model.modules() if hasattr(m, "gradient_checkpointing")]
    for layer in layers:
        layer.gradient_checkpointing = True
    ids = torch.tensor([[5, 6, 7]])
    with unwrap_model_for_generation(torch.nn.DataParallel(model)) as bare:
        assert bare is model
        assert not any(m.gradient_checkpointing for m in layers)
        said = bare.generate(ids, max_new_tokens=4, do_sample=False)
    assert layers
    assert all(m.gradient_checkpointing for m in layers)
    assert torch.equal(said, tiny_model("llama").generate(ids, max_new_tokens=4, do_sample=False))
