"""kvmscope.ui.render."""
