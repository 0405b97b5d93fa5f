"""Checkpoints, attention, prompt layout and adapters of PaliGemma 2 (arXiv 2412.03555)."""
