"""kvmscope.export."""
