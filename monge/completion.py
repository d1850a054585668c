"""Shell completion: a script of all commands and options for bash or zsh."""

import importlib
import shlex
from typing import Literal

import tyro

SCRIPT = """\
# completion of monge; regenerate it after an update
_monge() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" command="${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}}" words=""
  if [[ $COMP_CWORD -eq 1 ]]; then words={first}
  elif [[ $COMP_CWORD -eq 2 && $word != -* ]]; then
    case "${{COMP_WORDS[1]}}" in
{verbs}
    esac
  fi
  if [[ $word == -* ]]; then
    case "$command" in
{options}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _monge monge
"""


def completion(shell: tyro.conf.Positional[Literal["bash", "zsh"]]) -> None:
    """Print a completion script: monge completion bash > ~/.local/share/bash-completion/completions/monge

    Args:
        shell: Shell that the script is for.
    """
    print(script(shell), end="")


def script(shell: str) -> str:
    """The completion script of a shell. zsh runs the script for bash through bashcompinit."""
    from monge.cli import APPS, TOOLS, verbs_of

    verbs = [f"      {app}) words={shlex.quote(' '.join(verbs_of(app)))} ;;" for app in APPS]
    options = [f"      {tool}*) words={shlex.quote(_options(module, tool))} ;;" for tool, module in TOOLS.items()]
    for app in APPS:
        options += [
            f'      "{app} {verb}") words={shlex.quote(_options(f"apps.{app}.cli", verb))} ;;' for verb in verbs_of(app)
        ]
    text = SCRIPT.format(
        first=shlex.quote(" ".join([*APPS, *TOOLS])), verbs="\n".join(verbs), options="\n".join(options)
    )
    return text if shell == "bash" else "autoload -U +X bashcompinit && bashcompinit\n" + text


def _options(module: str, verb: str) -> str:
    function = importlib.import_module(f"monge.{module}").VERBS[verb]
    parser = tyro.extras.get_parser(function)
    return " ".join(option for option in parser._option_string_actions if option.startswith("--"))


VERBS = {"completion": completion}
