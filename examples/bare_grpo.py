"""GRPO as a plain torch loop: sample groups, judge, compare in the group, clipped loss, AdamW. GRPOTrainer is tested equal to it.

    python examples/bare_grpo.py                     # a tiny random model learns to write letters, offline
    python examples/bare_grpo.py --loss_type cispo   # or grpo, bnpo, dr_grpo, luspo

Left out, and what GRPOTrainer is for: micro-batches, several processes, precision, adapters, rewards that do not apply, engines,
checkpoints, logging. For a model of your own see bare_ppo.py.
"""

import argparse
import copy
import zlib
from dataclasses import dataclass

import torch
from transformers import LlamaConfig
from transformers.models.llama import LlamaForCausalLM

from trellis.advantages import group_normalized
from trellis.data import prompt_indices
from trellis.losses.group import PolicyStep, bind_group_loss, kl_term
from trellis.rollout import SamplingParams, sample, to_batch
from trellis.scoring import score


@dataclass
class Settings:
    rollouts: int = 20
    prompts: int = 4
    num_generations: int = 8
    num_iterations: int = 1
    minibatches: int = 2
    max_completion_length: int = 16
    learning_rate: float = 1e-2
    beta: float = 0.04
    loss_type: str = "dapo"
    importance_sampling_level: str = "token"
    epsilon: float = 0.2
    epsilon_high: float | None = None
    delta: float | None = None
    scale_rewards: str = "group"
    max_grad_norm: float = 1.0
    seed: int = 0


def any_seed(*parts):
    return zlib.crc32(repr(parts).encode())  # of a row's draw, of the order of an epoch


def shuffled(prompts, samples, seed):
    """The rows of a rollout in random order, those of one prompt side by side, so that they can share it."""
    random = torch.Generator().manual_seed(seed)
    first = torch.randperm(prompts, generator=random)[:, None] * samples
    return (first + torch.rand(prompts, samples, generator=random).argsort(dim=1)).flatten()


def train(model, prompts, judge, sampling, s, seed_of=any_seed):
    """Yield each rollout's batch and rewards after its optimizer steps. `prompts`: token ids; `judge(completions)`: numbers."""
    model.eval()  # without dropout, so that sampling and training see one policy
    reference = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), s.learning_rate, weight_decay=0.0)
    objective = bind_group_loss(s.loss_type, vars(s))
    n, rows = s.num_generations, range(s.prompts * s.num_generations)
    group = torch.tensor(rows) // n
    for i in range(s.rollouts):
        asked = [prompts[row] for row in prompt_indices(i * s.prompts, s.prompts, len(prompts), s.seed)]
        said = sample(model, asked, sampling, n=n, seeds=[seed_of(s.seed, i, row) for row in rows])
        batch = to_batch([prompt for prompt in asked for _ in range(n)], said, group=group.tolist())
        with torch.no_grad():
            old = score(model, batch, temperature=sampling.temperature).logps
            ref = score(reference, batch, temperature=sampling.temperature).logps
        rewards = torch.tensor(judge(said))
        advantages = group_normalized(rewards, group, scale=s.scale_rewards)
        for epoch in range(s.num_iterations):
            order = shuffled(s.prompts, n, seed_of(s.seed, "minibatches", i, epoch))
            for part in order.view(s.minibatches, -1):
                mini, mask = batch.rows(part), batch.rows(part).loss_mask
                logps = score(model, mini, temperature=sampling.temperature).logps
                before, first = (x[part][:, : mask.shape[1]] for x in (old, ref))
                terms = objective(PolicyStep(logps, before, advantages[part], mask))
                per_token = (terms.loss + s.beta * kl_term(logps, first)) * objective.weights(mask)
                items = objective.items(mask).sum()
                if objective.per == "rollout":  # every token of the rollout weighs the same
                    items = batch.loss_mask.sum() / s.minibatches
                optimizer.zero_grad()
                (per_token.sum() / items).backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), s.max_grad_norm)
                optimizer.step()
        yield batch, rewards


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loss_type", default=Settings.loss_type)
    parser.add_argument("--rollouts", type=int, default=Settings.rollouts)
    s = Settings(**vars(parser.parse_args(argv)))
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=257, bos_token_id=None, eos_token_id=256, **shape))
    sampling = SamplingParams(max_new_tokens=s.max_completion_length, stop_ids=frozenset([256]))

    def judge(completions):  # the share of letters among the bytes
        return [sum(65 <= b <= 90 or 97 <= b <= 122 for b in c.ids) / len(c.ids) for c in completions]

    prompts = [list(text.encode()) for text in ("The film was", "The plot is", "I think", "She said")]
    means = []
    for i, (_, rewards) in enumerate(train(model, prompts, judge, sampling, s)):
        means.append(float(rewards.mean()))
        print(f"rollout {i:3d}  reward {means[-1]:.3f}")
    return means


if __name__ == "__main__":
    main()
