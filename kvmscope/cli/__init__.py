"""The command line: one module a command, found by name; see docs/command-line.md for the contract."""

from __future__ import annotations

from kvmscope.cli.main import run_command_line

__all__ = ["run_command_line"]
