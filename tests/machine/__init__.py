"""The machine as a guest sees it: every sentence of the manual that a guest can ask about."""
