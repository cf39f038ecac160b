"""kvmscope.reproducer."""
