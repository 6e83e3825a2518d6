"""The commands of ``tomolab`` in the terminal: each is one function, registered in `COMMANDS`. Help loads nothing heavy."""

from tomolab.commands import files, machine, runs

COMMANDS = (*files.COMMANDS, *runs.COMMANDS, *machine.COMMANDS)
"""All commands in the order of the help."""
