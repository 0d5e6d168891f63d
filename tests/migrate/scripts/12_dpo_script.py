# TRL 0.26: the script form, with the dataclasses of the command line
import sys

from transformers import AutoModelForCausalLM, AutoTokenizer

from trl import (
    DPOConfig,
    DPOTrainer,
    ModelConfig,
    ScriptArguments,
    TrlParser,
    get_dataset,
    get_peft_config,
)


def main(script_args, training_args, model_args):
    model = AutoModelForCausalLM.from_pretrained(model_args.model_name_or_path)
    tokenizer = AutoTokenizer.from_pretrained(model_args.model_name_or_path)
    dataset = get_dataset(script_args)
    trainer = DPOTrainer(
        model,
        args=training_args,
        train_dataset=dataset[script_args.dataset_train_split],
        processing_class=tokenizer,
        peft_config=get_peft_config(model_args),
    )
    trainer.train()
    trainer.save_model(training_args.output_dir)


if __name__ == "__main__":
    sys.argv += ["--model_name_or_path", "Qwen/Qwen2-0.5B-Instruct", "--dataset_name", "chat_pairs.jsonl"]
    sys.argv += ["--output_dir", "qwen-dpo", "--max_steps", "2", "--logging_steps", "1", "--beta", "0.3"]
    parser = TrlParser((ScriptArguments, DPOConfig, ModelConfig))
    main(*parser.parse_args_and_config())
