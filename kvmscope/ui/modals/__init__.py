"""Dialogs: only where an answer is needed before anything else can happen."""
