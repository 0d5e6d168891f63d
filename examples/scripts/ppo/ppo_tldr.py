"""PPO on posts to be summarised (TL;DR), or any data set of prompts with a validation split.

python examples/scripts/ppo/ppo_tldr.py --dataset_name trl-lib/tldr --dataset_test_split validation \
    --output_dir my-tldr --learning_rate 3e-6 --per_device_train_batch_size 16 --gradient_accumulation_steps 4 \
    --total_episodes 1000000 --model_name_or_path MODEL --sft_model_path SFT --reward_model_path REWARD \
    --local_rollout_forward_batch_size 16 --missing_eos_penalty 1.0 --stop_token eos
"""

from transformers import AutoTokenizer, HfArgumentParser

from trellis import ModelConfig, PPOConfig, PPOTrainer, ScriptArguments, get_dataset, get_peft_config
from trellis.models import load_causal_lm

LONGEST_PROMPT = 512


def main() -> None:
    parser = HfArgumentParser((ScriptArguments, PPOConfig, ModelConfig))
    script_args, training_args, model_args = parser.parse_args_into_dataclasses()
    script_args.dataset_name = script_args.dataset_name or "trl-lib/tldr"
    tokenizer = AutoTokenizer.from_pretrained(model_args.model_name_or_path)

    def short(row: dict) -> bool:
        return len(tokenizer(row["prompt"])["input_ids"]) <= LONGEST_PROMPT

    dataset = get_dataset(script_args).filter(short)
    test = dataset.get(script_args.dataset_test_split, dataset.get("validation"))
    trainer = PPOTrainer(
        args=training_args,
        processing_class=tokenizer,
        model=load_causal_lm(training_args.sft_model_path, model_args.init_kwargs()),
        ref_model=None,  # a frozen copy, or the model without its adapter
        reward_model=training_args.reward_model_path,
        value_model=training_args.reward_model_path,
        train_dataset=dataset[script_args.dataset_train_split],
        eval_dataset=test,
        peft_config=get_peft_config(model_args),
    )
    trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    trainer.save_model(training_args.output_dir)
    if training_args.push_to_hub:
        trainer.push_to_hub(dataset_name=script_args.dataset_name)


if __name__ == "__main__":
    main()
