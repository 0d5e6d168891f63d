"""Kill a training process with SIGKILL at a random moment, resume it, and compare with a run that nobody touched.

`python -m tests.resume.kill9 [CASE …] [--seed N] [--kills N]` does so for the named cases (default: one per trainer) and prints
one line each; exit code 1 when any final weights differ. Every run is a process of its own, which starts warm. The moment is
drawn among all that a run says: each finished optimizer step and each call of the reward function, in the middle of a rollout.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
from pathlib import Path

from tests import warm


def run(case: str, folder: Path, *, resume: bool = False, kill_at: int | None = None) -> list[str]:
    """Train `case` in a process of its own; returns what it said. With `kill_at` it dies right after so many events."""
    words = ["-m", "tests.resume.kill9", "--child", folder, case, *(["--resume"] if resume else [])]
    said: list[str] = []
    with tempfile.TemporaryFile("w+") as errors, warm.start(*words, stderr=errors) as process:
        for line in process.stdout:
            said.append(line.strip())
            if kill_at is not None and len(said) > kill_at:
                process.send_signal(signal.SIGKILL)
        code = process.wait()
        errors.seek(0)
        if code not in (0, None if kill_at is None else -signal.SIGKILL):
            raise SystemExit(f"{case} in {folder} ended with {code}:\n{errors.read()}")
    return said


def child(case: str, folder: str, resume: bool) -> None:
    """Train, saying each event, and at the end the hash of the weights."""
    from tests.resume import cases
    from tests.resume.equal import disturb, weights_hash
    from trellis import checkpoint

    trainer = cases.CASES[case](folder)
    cases.told = lambda event: print(event, flush=True)
    if resume:
        disturb()
    checkpoint.recover(folder)
    saved = resume and checkpoint.newest_whole(folder) is not None  # not if it died before its first save
    trainer.train(resume_from_checkpoint=True if saved else None)
    print("weights", weights_hash(trainer), flush=True)


def compare(case: str, draw: random.Random, kills: int) -> bool:
    """Whether a run of `case` that was killed `kills` times ends with the weights of one that never was."""
    with tempfile.TemporaryDirectory() as folder:
        calm = run(case, Path(folder, "calm"))
        events, points = len(calm) - 1, []
        for attempt in range(kills):
            moment = draw.randrange(events - 2) if attempt == 0 else 0  # a resumed run has fewer moments left
            said = run(case, Path(folder, "killed"), resume=attempt > 0, kill_at=moment)
            points.append(said[min(moment, len(said) - 1)])
        last = run(case, Path(folder, "killed"), resume=True)[-1]
        print(
            f"{case}: killed after {', '.join(points)}; {'equal' if last == calm[-1] else 'DIFFERENT'} {last}",
            flush=True,
        )
        return last == calm[-1]


def main(words: list[str] | None = None) -> int:
    """See the module's text; `words` stand for the command line's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--kills", type=int, default=1)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--resume", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.child:
        child(args.cases[0], args.child, args.resume)
        return 0
    seed = random.SystemRandom().randrange(10_000) if args.seed is None else args.seed
    print(f"seed {seed}")
    draw = random.Random(seed)
    return (
        0 if all([compare(case, draw, args.kills) for case in args.cases or ("sft", "reward", "ppo")]) else 1
    )


if __name__ == "__main__":
    sys.exit(main())
