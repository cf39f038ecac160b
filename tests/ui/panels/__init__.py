"""Tests of the UI's panels."""
