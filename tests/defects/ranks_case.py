"""What two processes do in one launch: train PPO, whole and with an adapter, save, evaluate."""

from pathlib import Path

import torch
from peft import LoraConfig

from tests.builders import tiny_model
from tests.trainers.ppo_runs import TEXTS, logged, stops_often, trainer_of


def run(folder, adapter):
    """Train on this rank with checkpoints, save, evaluate; returns weights and what was logged."""
    place = Path(folder, "lora" if adapter else "full")
    parts = {"model": stops_often(tiny_model("llama")), "eval_dataset": TEXTS[:2]}
    if adapter:
        parts["peft_config"] = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = trainer_of(
        place,
        parts=parts,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        num_mini_batches=2,
        save_strategy="steps",
        save_steps=3,
        seed=4,
    )
    trainer.train()
    trainer.save_model(str(place / "final"))
    evaluated = trainer.evaluate()
    return {
        "weights": torch.cat(
            [p.detach().flatten() for p in trainer.actor_critic.parameters() if p.requires_grad]
        ),
        "steps": trainer.state.global_step,
        "kl": logged(trainer, "objective/kl"),
        "ends": logged(trainer, "val/num_eos_tokens"),
        "finished": int(trainer.rollout.finished.sum()),
        "advantages": trainer.rollout.advantages,
        "mask": trainer.rollout.loss_mask,
        "score": evaluated["eval_objective/scores"],
    }


def both(folder):
    """The full model, then an adapter."""
    return {"full": run(folder, False), "lora": run(folder, True)}
