"""A built kvm-unit-tests tree as a suite: its configuration, what of it our machine can run, the runs and their verdicts."""
