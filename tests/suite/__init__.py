"""Tests of kvmscope.suite."""
