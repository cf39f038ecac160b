"""kvmscope.x86."""
