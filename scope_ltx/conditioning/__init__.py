"""What a generation is conditioned on, as tokens: see `sequence`."""
