"""`trellis completion bash|zsh|fish`: a script that completes verbs, flags and choices, written from the verbs' own help."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
from collections.abc import Sequence

from . import TRAINED, VERBS

EPILOG = """\
bash:  trellis completion bash > ~/.local/share/bash-completion/completions/trellis
zsh:   trellis completion zsh > DIRECTORY/_trellis, where DIRECTORY is in $fpath
fish:  trellis completion fish > ~/.config/fish/completions/trellis.fish
The flags are those of this version; write the file again after an update.
"""
FLAG = re.compile(r"^ +(?:-\w, )?(--[\w-]+)(?:[ =]\{([^}\s]+)\})?", re.MULTILINE)

Flags = dict[str, tuple[str, ...]]


def main(argv: Sequence[str]) -> int:
    """Print the script."""
    parser = argparse.ArgumentParser(
        prog="trellis completion",
        description="Prints a script that completes verbs, flags and their choices.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("shell", choices=SHELLS)
    print(SHELLS[parser.parse_args(argv).shell]({verb: flags_of(verb) for verb in VERBS}), end="")
    return 0


def flags_of(verb: str) -> Flags:
    """{flag: its choices} of a verb."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        if verb in TRAINED:
            from .launch import PRESETS
            from .train import parser_of

            parser_of(verb).print_help()
            print(f"  --nproc N\n  --accelerate {{{','.join(PRESETS)}}}")
        else:
            from . import main as trellis

            trellis([verb, "--help"])
    return {
        flag: tuple(choices.split(",")) if choices else () for flag, choices in FLAG.findall(said.getvalue())
    }


def bash(found: dict[str, Flags]) -> str:
    """The script for bash: a flag's choices after it, else files; the verb's flags after a dash."""
    lines = [
        "# trellis, completed by bash",
        "_trellis() {",
        '  local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}"',
    ]
    lines += [
        "  COMPREPLY=()",
        "  if [ $COMP_CWORD -eq 1 ]; then",
        _reply(" ".join(found), "    "),
        "    return",
        "  fi",
    ]
    lines.append('  case "${COMP_WORDS[1]} $prev" in')
    for verb, flags in found.items():
        lines += [
            f'    "{verb} {flag}") {_reply(" ".join(words), "")}; return ;;'
            for flag, words in flags.items()
            if words
        ]
    lines += ["  esac", '  case "${COMP_WORDS[1]} $cur" in']
    lines += [f'    "{verb} -"*) {_reply(" ".join(flags), "")}; return ;;' for verb, flags in found.items()]
    return "\n".join([*lines, "  esac", "}", "complete -o default -F _trellis trellis", ""])


def _reply(words: str, indent: str) -> str:
    return f'{indent}COMPREPLY=($(compgen -W "{words}" -- "$cur"))'


def zsh(found: dict[str, Flags]) -> str:
    """The script for zsh."""
    lines = ["#compdef trellis", "_trellis() {", "  if (( CURRENT == 2 )); then", "    local -a verbs=("]
    lines += [f"      '{verb}:{_quoted(VERBS[verb])}'" for verb in found]
    lines += ["    )", "    _describe verb verbs", "    return", "  fi", '  case "$words[2]" in']
    for verb, flags in found.items():
        words = " ".join(f"'{flag}:{flag[2:]}:{_after(choices)}'" for flag, choices in flags.items())
        lines.append(f"    {verb}) _arguments -S {words} '*:file:_files' ;;")
    return "\n".join([*lines, "  esac", "}", "compdef _trellis trellis", ""])


def _after(choices: Sequence[str]) -> str:
    return f"({' '.join(choices)})" if choices else "_files"


def _quoted(text: str) -> str:
    return text.replace("'", "'\\''").replace(":", "\\:")


def fish(found: dict[str, Flags]) -> str:
    """The script for fish."""
    lines = ["# trellis, completed by fish"]
    for verb in found:
        said = VERBS[verb].replace("\\", "\\\\").replace("'", "\\'")
        lines.append(f"complete -c trellis -n __fish_use_subcommand -f -a {verb} -d '{said}'")
    for verb, flags in found.items():
        seen = f"complete -c trellis -n '__fish_seen_subcommand_from {verb}'"
        lines += [
            f"{seen} -l {flag[2:]}" + (f" -xa '{' '.join(words)}'" if words else "")
            for flag, words in flags.items()
        ]
    return "\n".join([*lines, ""])


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}
