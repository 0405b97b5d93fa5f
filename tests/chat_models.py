"""Small random image-text-to-text models of other families, with their processors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {% for c in m['content'] %}{% if c['type'] == 'image' %}IMAGE{% else %}"
    "{{ c['text'] }}{% endif %}{% endfor %}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
_TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
FAMILIES = ("gemma3", "llava", "qwen2_vl")


def _tokenizer(special: dict[str, str]) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<pad>", "<eos>", "<bos>", *special.values(), *alphabet]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, []))  # type: ignore[arg-type]
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        additional_special_tokens=list(special.values()),
        extra_special_tokens=special,
    )


def small_model(family: str) -> tuple[Any, Any]:
    """A model of one of `FAMILIES` and its processor."""
    seed, spread = (10, 0.1) if family == "gemma3" else (5, 0.3)  # such that texts depend on the image
    torch.manual_seed(seed)
    made: tuple[Any, Any] = {"gemma3": _gemma3, "llava": _llava, "qwen2_vl": _qwen2_vl}[family]()
    model, processor = made
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=spread)
    model.generation_config.pad_token_id = 0
    return model.eval(), processor


def write_model(family: str, folder: Path) -> Path:
    """The same as a checkpoint."""
    model, processor = small_model(family)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _gemma3() -> tuple[Any, Any]:
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    tokenizer = _tokenizer({"image_token": "<img>", "boi_token": "<boi>", "eoi_token": "<eoi>"})
    images = Gemma3ImageProcessorPil(size={"height": 56, "width": 56})
    template = "<bos>" + _TEMPLATE.replace("IMAGE", "<boi>")
    processor = transformers.Gemma3Processor(images, tokenizer, chat_template=template, image_seq_length=4)
    config = transformers.Gemma3Config(
        text_config=_TEXT | {"vocab_size": len(tokenizer), "head_dim": 16, "sliding_window": 64},
        vision_config=_VISION,
        mm_tokens_per_image=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<img>"),
        boi_token_index=tokenizer.convert_tokens_to_ids("<boi>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<eoi>"),
    )
    return transformers.Gemma3ForConditionalGeneration(config), processor


def _llava() -> tuple[Any, Any]:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = _tokenizer({"image_token": "<image>"})
    images = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    processor = transformers.LlavaProcessor(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_TEMPLATE.replace("IMAGE", "<image>"),
    )
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**_TEXT, vocab_size=len(tokenizer)),
        vision_config=transformers.CLIPVisionConfig(**_VISION),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return transformers.LlavaForConditionalGeneration(config), processor


def _qwen2_vl() -> tuple[Any, Any]:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = _tokenizer(
        {
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "start": "<|vision_start|>",
            "end": "<|vision_end|>",
        }
    )
    images = Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=4 * 28 * 28)
    template = _TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")

    processor = _without_videos(images, tokenizer, template)
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad", "vision_start")}
    config = transformers.Qwen2VLConfig(
        text_config=_TEXT
        | {"vocab_size": len(tokenizer), "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}},
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2},
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
    )
    return transformers.Qwen2VLForConditionalGeneration(config), processor


def _without_videos(images: Any, tokenizer: Any, template: str) -> Any:
    """Qwen's processor without its part for videos, which needs torchvision."""
    processor = transformers.Qwen2VLProcessor.__new__(transformers.Qwen2VLProcessor)
    processor.image_processor, processor.tokenizer = images, tokenizer
    processor.video_processor = None
    processor.chat_template = template
    processor.image_token, processor.video_token = "<|image_pad|>", "<|video_pad|>"
    processor.image_token_id = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    processor.video_token_id = tokenizer.convert_tokens_to_ids("<|video_pad|>")
    return processor
