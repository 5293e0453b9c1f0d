"""LoRAs: files opened and checked, told apart, fitted to a mode, and merged into pristine weights."""
