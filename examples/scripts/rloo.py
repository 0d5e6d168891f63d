"""RLOO on prompts, with reward functions, from the command line.

python examples/scripts/rloo.py --model_name_or_path MODEL --dataset_name gsm8k.jsonl --reward_funcs accuracy \
    --output_dir my-rloo --num_generations 4 --max_completion_length 256
"""

from trellis import (
    ModelConfig,
    RLOOConfig,
    RLOOTrainer,
    ScriptArguments,
    TrellisParser,
    get_dataset,
    get_peft_config,
)
from trellis.cli.online import OnlineScriptArguments, rewards


def main() -> None:
    parser = TrellisParser((ScriptArguments, RLOOConfig, ModelConfig, OnlineScriptArguments))
    script_args, training_args, model_args, reward_args = parser.parse_args_and_config()
    training_args.model_init_kwargs = model_args.init_kwargs()
    dataset = get_dataset(script_args)
    trainer = RLOOTrainer(
        model=model_args.model_name_or_path,
        reward_funcs=rewards(reward_args),
        args=training_args,
        train_dataset=dataset[script_args.dataset_train_split],
        eval_dataset=dataset.get(script_args.dataset_test_split) if training_args.do_eval else None,
        peft_config=get_peft_config(model_args),
    )
    trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    trainer.save_model(training_args.output_dir)
    if training_args.push_to_hub:
        trainer.push_to_hub(dataset_name=script_args.dataset_name)


if __name__ == "__main__":
    main()
