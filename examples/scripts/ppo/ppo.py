"""PPO against a reward model.

python examples/scripts/ppo/ppo.py --dataset_name prompts.jsonl --learning_rate 3e-6 --output_dir my-ppo \
    --per_device_train_batch_size 64 --gradient_accumulation_steps 1 --total_episodes 10000 \
    --model_name_or_path MODEL --sft_model_path SFT --reward_model_path REWARD --missing_eos_penalty 1.0
"""

from transformers import AutoTokenizer, HfArgumentParser

from trellis import ModelConfig, PPOConfig, PPOTrainer, ScriptArguments, get_dataset, get_peft_config
from trellis.models import load_causal_lm

HELD_OUT = 100


def main() -> None:
    parser = HfArgumentParser((ScriptArguments, PPOConfig, ModelConfig))
    script_args, training_args, model_args = parser.parse_args_into_dataclasses()

    prompts = get_dataset(script_args)[script_args.dataset_train_split]
    held_out = min(HELD_OUT, len(prompts) // 10)
    train, test = prompts.select(range(len(prompts) - held_out)), None
    if held_out:
        test = prompts.select(range(len(prompts) - held_out, len(prompts)))

    trainer = PPOTrainer(
        args=training_args,
        processing_class=AutoTokenizer.from_pretrained(model_args.model_name_or_path),
        model=load_causal_lm(training_args.sft_model_path, model_args.init_kwargs()),
        ref_model=None,  # a frozen copy, or the model without its adapter
        reward_model=training_args.reward_model_path,
        value_model=training_args.reward_model_path,
        train_dataset=train,
        eval_dataset=test,
        peft_config=get_peft_config(model_args),
    )
    trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    trainer.save_model(training_args.output_dir)
    if training_args.push_to_hub:
        trainer.push_to_hub(dataset_name=script_args.dataset_name)


if __name__ == "__main__":
    main()
