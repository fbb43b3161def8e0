"""The command line as data: commands, parameters, their types and defaults.

``python -m tests.tools.command_line`` prints it, one line per parameter. The file
tests/data/cli_options.json is what it printed for a released version.
"""

from __future__ import annotations

import json
from typing import Any

import click

Parameters = dict[str, dict[str, Any]]
"""A description of each parameter, by its spellings."""


def command_line(
    command: click.Command, path: str = "zsic-index", prefix: str | None = None
) -> dict[str, Parameters]:
    """Return the parameters of a command and of those below it."""
    prefix = command.context_settings.get("auto_envvar_prefix", prefix)
    commands = {path: parameters(command, prefix)}
    if isinstance(command, click.Group):
        for name, child in sorted(command.commands.items()):
            commands |= command_line(child, f"{path} {name}", prefix)
    return commands


def parameters(command: click.Command, prefix: str | None) -> Parameters:
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    options = sorted(
        (param for param in command.params if isinstance(param, click.Option)),
        key=lambda option: option.opts[-1],
    )
    return {
        **{f"argument {n}": describe(param, None) for n, param in enumerate(arguments, 1)},
        **{" ".join(param.opts): describe(param, prefix) for param in options},
    }


def describe(parameter: click.Parameter, prefix: str | None) -> dict[str, Any]:
    """Return what a caller depends on, without what is usual."""
    info = parameter.to_info_dict()
    kind = info["type"]
    default = info["default"]
    given = default is not None and default is not False and default != ()
    envvar = info["envvar"] or (f"{prefix}_{parameter.name}".upper() if prefix else None)
    limits = {key: kind.get(key) for key in ("min", "max", "min_open", "max_open")}
    return {
        "type": kind["param_type"],
        **{key: limit for key, limit in limits.items() if limit is not None and limit is not False},
        **({"choices": list(kind["choices"])} if "choices" in kind else {}),
        **({"default": str(default)} if given else {}),
        **({"nargs": info["nargs"]} if info["nargs"] != 1 else {}),
        **{key: True for key in ("required", "multiple", "is_flag") if info.get(key)},
        **({"envvar": envvar} if envvar else {}),
    }


def dump(commands: dict[str, Parameters]) -> str:
    blocks = []
    for path, described in commands.items():
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in described.items()]
        blocks.append(
            f" {json.dumps(path)}: " + ("{\n" + ",\n".join(lines) + "\n }" if lines else "{}")
        )
    return "{\n" + ",\n".join(blocks) + "\n}"


def main() -> None:
    from zsic_index import cli

    print(dump(command_line(cli.main)))


if __name__ == "__main__":
    main()
