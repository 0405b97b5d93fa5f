"""LoRA fine-tuning of PaliGemma 2: samples, loss, trainer, and the verb that ties them together."""
