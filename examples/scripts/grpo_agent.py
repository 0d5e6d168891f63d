"""GRPO with two tools, or in a game of several turns.

python examples/scripts/grpo_agent.py --model_name_or_path MODEL --output_dir my-agent
python examples/scripts/grpo_agent.py --model_name_or_path MODEL --output_dir my-player --task game
"""

from dataclasses import dataclass, field

from trellis import GRPOConfig, GRPOTrainer, ModelConfig, TrellisParser, get_peft_config


@dataclass
class Task:
    task: str = field(default="sums", metadata={"help": "sums (with tools) or game (guess a number)."})


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: the first number
        b: the second number
    """
    return a + b


def multiply(a: int, b: int) -> int:
    """Multiply two numbers.

    Args:
        a: the first number
        b: the second number
    """
    return a * b


class Guess:
    """A number between 1 and 9, found by guessing: each turn is a guess, each answer says where the number lies."""

    def reset(self, number: int) -> str:
        self.number, self.tries, self.found = number, 0, False
        return "I think of a number between 1 and 9. Answer with a number only."

    def step(self, text: str) -> tuple[str, bool]:
        self.tries += 1
        guess = int(text) if text.strip().isdecimal() else 0
        self.found = guess == self.number
        return "Higher." if guess < self.number else "Lower.", self.found

    def get_reward(self) -> float:
        return 1.0 / self.tries if self.found else 0.0


def correct(completions: list[list[dict]], answer: list[str]) -> list[float]:
    return [float(c[-1]["content"].strip() == a) for c, a in zip(completions, answer, strict=True)]


def question(a: int, b: int) -> dict:
    return {"prompt": [{"role": "user", "content": f"What is {a} + {b} * {b} ?"}], "answer": str(a + b * b)}


SUMS = [question(a, b) for a in range(20) for b in range(10)]
GAMES = [{"prompt": [{"role": "user", "content": "Play! "}], "number": number} for number in range(1, 10)]
TASKS = {
    "sums": {"tools": [add, multiply], "reward_funcs": correct, "train_dataset": SUMS},
    "game": {"environment_factory": Guess, "train_dataset": GAMES},  # its reward is its own
}


def main() -> None:
    script_args, args, model_args = TrellisParser((Task, GRPOConfig, ModelConfig)).parse_args_and_config()
    args.model_init_kwargs = model_args.init_kwargs()
    model, peft_config = model_args.model_name_or_path, get_peft_config(model_args)
    trainer = GRPOTrainer(model=model, args=args, peft_config=peft_config, **TASKS[script_args.task])
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model(args.output_dir)


if __name__ == "__main__":
    main()
