# TRL 0.26: the script form with HfArgumentParser
import shutil
import sys

from datasets import load_dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    HfArgumentParser,
)
from trl import ModelConfig, ScriptArguments
from trl.experimental.ppo import PPOConfig, PPOTrainer

if __name__ == "__main__":
    sys.argv += (
        "--dataset_name prompts.jsonl --output_dir ppo-tldr --learning_rate 3e-6 --num_ppo_epochs 1".split()
    )
    sys.argv += (
        "--num_mini_batches 1 --per_device_train_batch_size 4 --total_episodes 8 --response_length 6".split()
    )
    sys.argv += "--model_name_or_path gpt2 --sft_model_path gpt2 --reward_model_path my-reward-model".split()
    sys.argv += "--missing_eos_penalty 1.0 --logging_steps 1".split()
    parser = HfArgumentParser((ScriptArguments, PPOConfig, ModelConfig))
    script_args, training_args, model_args = parser.parse_args_into_dataclasses()
    shutil.rmtree(training_args.output_dir, ignore_errors=True)

    tokenizer = AutoTokenizer.from_pretrained(model_args.model_name_or_path, padding_side="left")
    value_model = AutoModelForSequenceClassification.from_pretrained(
        training_args.reward_model_path, num_labels=1
    )
    reward_model = AutoModelForSequenceClassification.from_pretrained(
        training_args.reward_model_path, num_labels=1
    )
    policy = AutoModelForCausalLM.from_pretrained(training_args.sft_model_path)
    ref_policy = AutoModelForCausalLM.from_pretrained(training_args.sft_model_path)

    dataset = load_dataset("json", data_files=script_args.dataset_name, split=script_args.dataset_train_split)
    dataset = dataset.map(
        lambda row: {"input_ids": tokenizer(row["prompt"])["input_ids"]}, remove_columns="prompt"
    )

    trainer = PPOTrainer(
        args=training_args,
        processing_class=tokenizer,
        model=policy,
        ref_model=ref_policy,
        reward_model=reward_model,
        value_model=value_model,
        train_dataset=dataset,
    )
    trainer.train()
    trainer.save_model(training_args.output_dir)
    trainer.generate_completions()
