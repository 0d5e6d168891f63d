"""README.md beside every saved model: true, complete, and with nothing in it that a name could smuggle in."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from datasets import Dataset, DatasetInfo
from peft import LoraConfig

from tests.faults import bad_rows
from tests.faults.trainers import ROWS, build
from trellis.trainers.model_card import CARD, MARK, Card, _dataset_of, card_of, write_card
from trellis.trainers.papers import PAPERS, TRELLIS

NASTY = 'm"\n---\nlicense: mit\n---\n# <script>x</script> [a](javascript:b) `c` ```\n'


def front(text):
    return yaml.safe_load(text.split("---\n")[1])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run of SFT with a checkpoint, saved again afterwards: its directory."""
    folder = tmp_path_factory.mktemp("card") / "a model"
    trainer = build("SFT", folder, bad_rows.good("language"), fresh=True, save_strategy="steps", save_steps=1)
    trainer.train()
    trainer.save_model()
    return folder, trainer


def test_every_checkpoint_and_saved_model_has_a_card(run):
    folder, trainer = run
    for place in (folder, folder / "checkpoint-1"):
        text = (place / CARD).read_text(encoding="utf-8")
        found = front(text)
        assert found["model_name"] == "a model"
        assert found["library_name"] == "transformers"
        assert set(found["tags"]) == {"trellis", "sft", "generated_from_trainer"}
        assert "SFTTrainer" in text
        assert "- `steps` 1\n- `learning_rate` 2e-05\n" in text
        assert re.search(r"^- `transformers` \d", text, flags=re.MULTILINE)
        assert text.count("```bibtex") == 1
    assert "README.md" in (folder / "checkpoint-1/manifest.json").read_text()


def test_names_that_are_given_reach_the_card(run):
    _, trainer = run
    trainer.create_model_card(
        "org/model", "org/data", ["mine"], license="apache-2.0", finetuned_from="org/base"
    )
    text = Path(trainer.args.output_dir, CARD).read_text(encoding="utf-8")
    found = front(text)
    assert (found["base_model"], found["datasets"], found["license"]) == (
        "org/base",
        ["org/data"],
        "apache-2.0",
    )
    assert "mine" in found["tags"]
    assert "[org/base](https://huggingface.co/org/base)" in text
    assert "[org/data](https://huggingface.co/datasets/org/data)" in text
    assert 'pipeline("text-generation", model="org/model")' in text


def test_a_card_of_your_own_stays(run):
    folder, trainer = run
    path = folder / CARD
    path.write_text(path.read_text().replace(MARK, "") + "mine", encoding="utf-8")
    trainer.create_model_card()
    trainer.save_model()
    assert path.read_text(encoding="utf-8").endswith("mine")


@pytest.mark.parametrize("name", ROWS)
def test_every_method_is_named_with_its_paper(name, tmp_path):
    trainer = build(name, tmp_path / "run", bad_rows.good(ROWS[name][0]))
    card = card_of(trainer)
    text = str(card)
    method = name.lower()
    assert front(text)["tags"][:2] == ["trellis", method]
    assert (card.paper is None) == (name == "SFT")
    if card.paper is not None:
        assert f"https://arxiv.org/abs/{PAPERS[method].arxiv}" in text
        assert f"@misc{{{PAPERS[method].key}," in text
    assert ('pipeline("text-classification"' in text) == (name == "Reward")
    write_card(card, tmp_path / "written")
    assert (tmp_path / "written" / CARD).read_text(encoding="utf-8") == text


def test_an_adapter_s_card_says_so(tmp_path):
    trainer = build("SFT", tmp_path, bad_rows.good("language"))
    from trellis.models import add_adapter

    trainer.model = add_adapter(trainer.model, LoraConfig(target_modules=["q_proj"]), "CAUSAL_LM")
    text = str(card_of(trainer, finetuned_from="org/base"))
    assert front(text)["library_name"] == "peft"
    assert "An adapter for [org/base]" in text
    assert "```python" not in text
    trainer.saving.parts(tmp_path / "saved", None)  # peft writes a card of its own
    assert MARK in (tmp_path / "saved" / CARD).read_text(encoding="utf-8")


@pytest.mark.parametrize("field", ["name", "base", "dataset", "license", "language"])
def test_a_name_smuggles_nothing_in(field):
    card = Card(
        **{"name": "m", "method": "dpo", "trainer": "DPOTrainer", "paper": PAPERS["dpo"], field: NASTY}
    )
    text = str(card)
    found = front(text)
    plain = front(
        str(Card("m", "dpo", "DPOTrainer", base="org/b", dataset="org/d", license="mit", language="en"))
    )
    assert set(found) <= set(plain)
    assert found["tags"] == plain["tags"]
    body = text.split(MARK)[1]
    assert "<script>" not in body
    assert "](javascript" not in body
    assert body.count("```") % 2 == 0
    assert [line for line in body.splitlines() if line.startswith("# ")] == [body.splitlines()[2]]


def test_tags_are_words_in_a_list():
    tag = "x]\nlicense: mit"
    assert front(str(Card("m", "sft", "SFTTrainer", tags=[tag])))["tags"][-1] == "x] license: mit"


def test_local_paths_are_not_told(tmp_path):
    trainer = build("SFT", tmp_path / "run", bad_rows.good("language"))
    before, trainer.model.config._name_or_path = trainer.model.config._name_or_path, str(tmp_path)
    text = str(card_of(trainer))
    trainer.model.config._name_or_path = before
    assert str(tmp_path) not in text
    assert "base_model" not in front(text) or "/" not in front(text)["base_model"]


def test_a_data_set_of_the_hub_is_known_by_its_sources():
    url = "hf://datasets/org/pairs@abc/data/train.parquet"
    data = Dataset.from_dict({"text": ["a"]}, info=DatasetInfo(download_checksums={url: {}}))
    assert _dataset_of(data) == "org/pairs"
    assert _dataset_of(Dataset.from_dict({"text": ["a"]})) is None
    assert _dataset_of([{"text": "a"}]) is None
    two = SimpleNamespace(info=SimpleNamespace(download_checksums={url: {}, url.replace("org", "other"): {}}))
    assert _dataset_of(two) is None


def test_a_paper_is_an_entry():
    for paper in (*PAPERS.values(), TRELLIS):
        assert paper.bibtex.count("{") == paper.bibtex.count("}")
        assert paper.url.startswith("https://")
