"""Decisions of the log relay: which lines are new, where one is missing, what is whole."""

from cairn_logs.core.assembly import Assembly, Taken

__all__ = ["Assembly", "Taken"]
