"""Schedules, the denoiser that drives the transformer's blocks, and the loop over noise levels."""
