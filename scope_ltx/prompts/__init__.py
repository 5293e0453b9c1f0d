"""What a prompt must look like: channel tags, two-part prompts, and the rules of each LoRA. Imports no torch."""
