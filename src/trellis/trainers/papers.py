"""The papers of the nine methods, as a model card cites them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """A paper or program: `key` is its BibTeX key, `arxiv` its number there ("" for none)."""

    key: str
    title: str
    author: str
    year: int
    arxiv: str = ""
    link: str = ""

    @property
    def url(self) -> str:
        """Where it can be read."""
        return self.link or f"https://arxiv.org/abs/{self.arxiv}"

    @property
    def bibtex(self) -> str:
        """The entry for a bibliography."""
        fields = {"title": f"{{{self.title}}}", "author": self.author, "year": str(self.year)}
        if self.arxiv:
            fields |= {"eprint": self.arxiv, "archivePrefix": "arXiv"}
        fields["url"] = self.url
        lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@misc{{{self.key},\n{lines}\n}}"


TRELLIS = Paper(
    "trellis",
    "Trellis: training language models along human preferences and rewards",
    "The Trellis authors",
    2026,
    link="https://pypi.org/project/trellis-rl/",
)

PAPERS = {
    "reward": Paper(
        "ouyang2022training",
        "Training language models to follow instructions with human feedback",
        "Ouyang, Long and Wu, Jeff and Jiang, Xu and others",
        2022,
        "2203.02155",
    ),
    "dpo": Paper(
        "rafailov2023direct",
        "Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
        "Rafailov, Rafael and Sharma, Archit and Mitchell, Eric and Ermon, Stefano and Manning, Christopher D. and Finn, Chelsea",
        2023,
        "2305.18290",
    ),
    "kto": Paper(
        "ethayarajh2024kto",
        "KTO: Model Alignment as Prospect Theoretic Optimization",
        "Ethayarajh, Kawin and Xu, Winnie and Muennighoff, Niklas and Jurafsky, Dan and Kiela, Douwe",
        2024,
        "2402.01306",
    ),
    "orpo": Paper(
        "hong2024orpo",
        "ORPO: Monolithic Preference Optimization without Reference Model",
        "Hong, Jiwoo and Lee, Noah and Thorne, James",
        2024,
        "2403.07691",
    ),
    "cpo": Paper(
        "xu2024contrastive",
        "Contrastive Preference Optimization: Pushing the Boundaries of LLM Performance in Machine Translation",
        "Xu, Haoran and Sharaf, Amr and Chen, Yunmo and Tan, Weiting and Shen, Lingfeng and Van Durme, Benjamin and Murray, "
        "Kenton and Kim, Young Jin",
        2024,
        "2401.08417",
    ),
    "ppo": Paper(
        "ziegler2019fine",
        "Fine-Tuning Language Models from Human Preferences",
        "Ziegler, Daniel M. and Stiennon, Nisan and Wu, Jeffrey and Brown, Tom B. and Radford, Alec and Amodei, Dario and "
        "Christiano, Paul and Irving, Geoffrey",
        2019,
        "1909.08593",
    ),
    "grpo": Paper(
        "shao2024deepseekmath",
        "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models",
        "Shao, Zhihong and Wang, Peiyi and Zhu, Qihao and Xu, Runxin and Song, Junxiao and Bi, Xiao and Zhang, Haowei and Zhang, "
        "Mingchuan and Li, Y. K. and Wu, Y. and Guo, Daya",
        2024,
        "2402.03300",
    ),
    "rloo": Paper(
        "ahmadian2024back",
        "Back to Basics: Revisiting REINFORCE Style Optimization for Learning from Human Feedback in LLMs",
        "Ahmadian, Arash and Cremer, Chris and Gallé, Matthias and Fadaee, Marzieh and Kreutzer, Julia and Pietquin, Olivier and "
        "Üstün, Ahmet and Hooker, Sara",
        2024,
        "2402.14740",
    ),
}
