"""LoRA fine-tuning of PaliGemma 2; `finetune` is the recipe."""
