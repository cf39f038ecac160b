"""Benchmarks: ``python -m benchmarks [NAME...]``.

Every figure is a ratio of two things measured in the same run, in turn, so that a machine's mood cancels out;
absolute numbers are printed beside it for orientation only.  Nothing is asserted here.
"""
