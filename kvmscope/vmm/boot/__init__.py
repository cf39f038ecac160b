"""kvmscope.vmm.boot."""
