"""kvmscope.debug."""
