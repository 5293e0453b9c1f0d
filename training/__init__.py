"""Training of the small model: not part of the installed package."""
