"""Odds-ratio preference optimisation on pairs, from the command line.

python examples/scripts/orpo.py --model_name_or_path MODEL --dataset_name pairs.jsonl --output_dir my-orpo
"""

from trellis import (
    ModelConfig,
    ORPOConfig,
    ORPOTrainer,
    ScriptArguments,
    TrellisParser,
    get_dataset,
    get_peft_config,
)


def main() -> None:
    parser = TrellisParser((ScriptArguments, ORPOConfig, ModelConfig))
    script_args, training_args, model_args = parser.parse_args_and_config()
    training_args.model_init_kwargs = model_args.init_kwargs()
    dataset = get_dataset(script_args)
    trainer = ORPOTrainer(
        model=model_args.model_name_or_path,
        args=training_args,
        train_dataset=dataset[script_args.dataset_train_split],
        eval_dataset=dataset.get(script_args.dataset_test_split) if training_args.do_eval else None,
        peft_config=get_peft_config(model_args),
    )
    trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    trainer.save_model(training_args.output_dir)


if __name__ == "__main__":
    main()
