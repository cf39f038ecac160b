"""kvmscope.asm."""
