"""kvmscope.vmm.unicorn."""
