"""kvmscope.ui."""
