"""One thread, no network, fixed seeds, and this checkout for every subprocess."""

import gc
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
os.environ["OMP_NUM_THREADS"] = "1"
for name in (
    "HF_HUB_OFFLINE",
    "HF_DATASETS_OFFLINE",
    "HF_HUB_DISABLE_TELEMETRY",
    "HF_HUB_DISABLE_PROGRESS_BARS",
):
    os.environ[name] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(ROOT / "src"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
)

import random  # noqa: E402  (the lines above must come before torch and transformers are imported)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer  # noqa: E402

torch.set_num_threads(1)


def pytest_collection_finish():
    """What is imported by now stays: no collection of garbage, of which every training run does some, walks it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeds():
    """Every test starts from the same random state."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def tokenizer():
    """A byte-level tokenizer with bos, eos and pad tokens, an end-of-turn token and a chat template."""
    return tiny_tokenizer()


@pytest.fixture
def pad_eos_tokenizer():
    """The same tokenizer with its end of sequence as padding, as GPT-2 and many Llama setups have it."""
    return tiny_tokenizer(pad_is_eos=True)


@pytest.fixture
def llama(tokenizer):
    """A random two-layer Llama over `tokenizer`'s vocabulary."""
    return tiny_model("llama", tokenizer)


@pytest.fixture
def classifier(tokenizer):
    """A random two-layer Llama with one score."""
    return tiny_classifier("llama", tokenizer)
