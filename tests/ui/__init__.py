"""Tests of the UI."""
