"""The suite browser: the entries of a kvm-unit-tests tree, their results, and the way into a failure."""
