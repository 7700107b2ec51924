"""Failures that are told to a person in one sentence."""

from __future__ import annotations


class InstarError(Exception):
    """Something expected went wrong: the text says what, where, and what to do about it."""
