"""Real-time LTX-2.3 for live video. The way in: `config`, `pipeline`, `session`, then `hosts`."""

__version__ = "0.1.0"
