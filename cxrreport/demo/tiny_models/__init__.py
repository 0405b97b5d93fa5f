"""How the shipped small models are made: PaliGemma 2 and RadGraph, trained on phantoms only."""
