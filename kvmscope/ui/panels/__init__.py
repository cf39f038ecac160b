"""kvmscope.ui.panels."""
