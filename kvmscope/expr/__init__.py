"""kvmscope.expr."""
