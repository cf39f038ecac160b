"""kvmscope.vmm."""
