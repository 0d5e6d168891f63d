"""Few rows times large matrices: the numbers of `nn.Linear`, only where they are meant to be, and no trace afterwards."""

import copy

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from tests.builders import tiny_model
from trellis.rollout import SamplingParams, sample
from trellis.rollout import products as module
from trellis.rollout.products import in_blocks

PRODUCT = "mkldnn::_linear_pointwise"
KNOWN = module._known()
"""Whether this build of torch has oneDNN; elsewhere nothing changes."""


def called(run) -> dict[str, int]:
    """How often each operator ran."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        run()
    return {event.key: event.count for event in seen.key_averages()}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 33, 64, 65])
def test_the_numbers_are_those_of_the_module(rows, bias):
    torch.manual_seed(0)
    linear = nn.Linear(192, 512, bias=bias)
    x = torch.randn(rows, 1, 192)
    with torch.no_grad():
        want = linear(x)
        with in_blocks(nn.Sequential(linear)):
            found = linear(x)
            assert (called(lambda: linear(x)).get(PRODUCT, 0) == 1) == (KNOWN and 0 < rows <= module.ROWS[-1])
    assert found.shape == want.shape
    assert torch.allclose(found, want, atol=1e-5)
    assert "forward" not in vars(linear)


def test_only_some_numbers_of_rows_reach_the_library():
    """Each would leave code of its own in memory."""
    linear = nn.Linear(256, 512)
    with in_blocks(linear), torch.no_grad(), profile(record_shapes=True) as seen:
        for rows in range(1, 65):
            assert linear(torch.ones(rows, 256)).shape == (rows, 512)
    met = {event.input_shapes[0][0] for event in seen.events() if event.key == PRODUCT}
    assert met == (set(module.ROWS) if KNOWN else set())


def test_gradients_and_halves_and_autocast_go_through_the_module_itself():
    linear, half = nn.Linear(512, 512), nn.Linear(512, 512).bfloat16()
    with in_blocks(nn.Sequential(linear, half)):
        linear(torch.ones(2, 512)).sum().backward()
        assert linear.weight.grad is not None
        assert "forward" not in vars(half)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            assert linear(torch.ones(2, 512, dtype=torch.bfloat16)).dtype == torch.bfloat16
            assert linear(torch.ones(2, 512)).dtype == torch.bfloat16


def test_copies_take_no_more_than_what_is_trained():
    room = 4 * 512 * 512
    model = nn.Sequential(nn.Linear(512, 512), nn.Linear(512, 1024), nn.Linear(8, 8)).requires_grad_(False)
    assert module._chosen(model, room) == [model[0]]  # the largest does not fit
    model[1].requires_grad_(True)
    assert module._chosen(model, room) == [model[1]]
    model.requires_grad_(True)
    assert module._chosen(model, room) == [model[1], model[0]]
    with torch.device("meta"):
        large = nn.ModuleList(nn.Linear(1 << 13, 1 << 13, bias=False) for _ in range(6))
    assert module._chosen(large, room) == []  # not on a CPU
    for linear in large:
        linear.weight = nn.Parameter(torch.empty(1, 1).expand(1 << 13, 1 << 13))
    assert len(module._chosen(large, room)) == module.MOST // (4 << 26)


def test_sampling_decodes_with_copies_of_the_weights_as_they_are_now():
    model = tiny_model("llama", hidden_size=256, intermediate_size=512, vocab_size=512)
    params = SamplingParams(max_new_tokens=6)
    prompts = [[5, 6, 7], [8, 9]]

    def run():
        return sample(model, prompts, params, n=3, seeds=range(6))

    assert (called(run).get(PRODUCT, 0) > 0) == KNOWN
    before = [c.ids for c in run()]
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    after = [c.ids for c in run()]
    assert after != before
    with torch.no_grad():
        for mine, was in zip(model.parameters(), other.parameters(), strict=True):
            mine.copy_(was)
    assert [c.ids for c in run()] == before
    assert all("forward" not in vars(m) for m in model.modules())


def test_a_failure_leaves_no_trace_either():
    linear = nn.Linear(512, 512)
    with pytest.raises(KeyError), in_blocks(linear):
        raise KeyError
    assert "forward" not in vars(linear)
