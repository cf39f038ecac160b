"""Tests of the UI's render."""
