"""PPO as a plain torch loop: sample, judge, score, advantages, clipped losses, AdamW. PPOTrainer is tested equal to it.

    python examples/bare_ppo.py                                     # a tiny random model learns to write letters, offline
    python examples/bare_ppo.py --model my/model --prompts "The film was" "The plot is"

Left out, and what PPOTrainer is for: micro-batches, several processes, precision, adapters, checkpoints, logging.
"""

import argparse
import copy
import zlib
from dataclasses import dataclass

import torch

from trellis.advantages import gae, place_score, whiten
from trellis.data import prompt_indices
from trellis.losses.policy import KL_ESTIMATORS, clipped_surrogate, clipped_value
from trellis.models import ActorCritic, disable_dropout
from trellis.rollout import SamplingParams, sample, spread, to_batch
from trellis.scoring import score, token_values
from trellis.types import Rollout


@dataclass
class Settings:
    rollouts: int = 15
    batch: int = 32
    epochs: int = 4
    minibatches: int = 2
    learning_rate: float = 1e-2
    kl_coef: float = 0.05
    kl_estimator: str = "k1"
    gamma: float = 1.0
    lam: float = 0.95
    cliprange: float = 0.2
    cliprange_value: float = 0.2
    vf_coef: float = 0.1
    max_grad_norm: float = 1.0
    seed: int = 0


def any_seed(*parts):
    """A seed for every (seed, rollout, row) and (seed, "minibatches", rollout, epoch)."""
    return zlib.crc32(repr(parts).encode())


def look(ac, batch, temperature):
    """Log-probabilities and values [B, T] of the tokens that were sampled."""
    found = score(ac.policy, batch, temperature=temperature, value_head=ac.value_head)
    return found.logps, found.values if ac.value_model is None else token_values(ac.value_model, batch)


def train(ac, prompts, judge, sampling, s, seed_of=any_seed):
    """Yield each rollout after its optimizer steps. `prompts`: token ids; `judge(rows, completions)`: one number each."""
    disable_dropout(ac)
    reference = copy.deepcopy(ac.policy).eval()
    optimizer = torch.optim.AdamW(
        (p for p in ac.parameters() if p.requires_grad), s.learning_rate, weight_decay=0.0
    )
    for i in range(s.rollouts):
        rows = prompt_indices(i * s.batch, s.batch, len(prompts), s.seed)
        asked = [prompts[row] for row in rows]
        said = sample(
            ac.policy, asked, sampling, seeds=[seed_of(s.seed, i, place) for place in range(s.batch)]
        )
        batch = to_batch(asked, said)
        mask = batch.loss_mask
        with torch.no_grad():
            old, values = look(ac, batch, sampling.temperature)
            ref = score(reference, batch, temperature=sampling.temperature).logps
            scores = torch.tensor(judge(rows, said))
            rewards = place_score(scores, mask) - s.kl_coef * KL_ESTIMATORS[s.kl_estimator](old, ref) * mask
            advantages, returns = gae(rewards, values, mask, gamma=s.gamma, lam=s.lam)
        rollout = Rollout(
            **vars(batch), old_logps=old, ref_logps=ref, values=values, rewards=rewards, scores=scores,
            sampled_logps=spread([c.logps for c in said], batch),
            advantages=whiten(advantages, mask), returns=returns, row=torch.tensor(rows),
            finished=torch.tensor([c.finish_reason == "stop" for c in said]),
        )  # fmt: skip
        for epoch in range(s.epochs):
            shuffled = torch.Generator().manual_seed(seed_of(s.seed, "minibatches", i, epoch))
            for part in torch.randperm(s.batch, generator=shuffled).view(s.minibatches, -1):
                mini = rollout.rows(part)
                logps, now = look(ac, mini, sampling.temperature)
                policy, _, _ = clipped_surrogate(
                    logps, mini.old_logps, mini.advantages, cliprange=s.cliprange
                )
                value, _ = clipped_value(now, mini.values, mini.returns, cliprange_value=s.cliprange_value)
                loss = ((policy + s.vf_coef * value) * mini.loss_mask).sum() / mini.loss_mask.sum()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(ac.parameters(), s.max_grad_norm)
                optimizer.step()
        yield rollout


class Bytes:
    """A tokenizer for models that were built here: one token per byte, and an end."""

    eos_token_id = 256

    def encode(self, text):
        return list(text.encode())

    def decode(self, ids, **_):
        return bytes(i for i in ids if i < 256).decode(errors="replace")


def tiny_model():
    from transformers import LlamaConfig
    from transformers.models.llama import LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=257, bos_token_id=None, eos_token_id=256, **shape)
    ), Bytes()


def named_model(name):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32), AutoTokenizer.from_pretrained(
        name
    )


def letters(text):
    """The share of letters in a text: a reward that anybody can check."""
    return sum(c.isascii() and c.isalpha() for c in text) / max(1, len(text))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", help="directory or hub id of a causal language model; default: a tiny random one"
    )
    parser.add_argument(
        "--prompts", nargs="+", default=["The film was", "The plot is", "I think", "She said"]
    )
    parser.add_argument("--rollouts", type=int, default=Settings.rollouts)
    parser.add_argument("--learning_rate", type=float, default=Settings.learning_rate)
    args = parser.parse_args(argv)
    model, tokenizer = named_model(args.model) if args.model else tiny_model()
    settings = Settings(rollouts=args.rollouts, learning_rate=args.learning_rate)
    sampling = SamplingParams(max_new_tokens=16, stop_ids=frozenset([tokenizer.eos_token_id]))

    def judge(rows, completions):
        return [letters(tokenizer.decode(c.ids, skip_special_tokens=True)) for c in completions]

    prompts = [tokenizer.encode(text) for text in args.prompts]
    means = []
    for i, rollout in enumerate(train(ActorCritic(model), prompts, judge, sampling, settings)):
        kl = (rollout.old_logps - rollout.ref_logps).sum(1).mean()
        means.append(float(rollout.scores.mean()))
        print(f"rollout {i:3d}  score {means[-1]:.3f}  KL {kl:.3f}")
    return means


if __name__ == "__main__":
    main()
