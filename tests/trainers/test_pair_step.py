"""What BCO compares rewards with: the mean over all earlier optimizer steps, whatever the step at hand has brought so far."""

import torch

from trellis.trainers.pair_step import WholeStep


def test_the_mean_reward_is_that_of_earlier_steps():
    whole = WholeStep()
    assert whole.mean_reward == 0.0
    whole.learn(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 0.0]))
    assert whole.mean_reward == 0.0  # within the step it stays what it was
    whole.settle(lambda x: x)
    assert whole.mean_reward == 1.0
    whole.learn(torch.tensor([6.0]), torch.tensor([0.0]))
    again = WholeStep()
    again.load(whole.state())
    for one in (whole, again):
        one.settle(lambda x: x)
        assert one.mean_reward == 10.0 / 6
