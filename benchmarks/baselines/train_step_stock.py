"""LoRA on PaliGemma 2 with transformers and peft as documented.

`PaliGemmaProcessor` with `suffix`, `get_peft_model`, `labels`, `Trainer`. Documented options that may help are options
here: `--checkpointing` (less memory) and `--bfloat16` (the type of the published examples). Attention is eager, the
only one that transformers offers for Gemma 2. Only layers of the language model are adapted; the bare names in
published examples would also adapt the vision tower, which costs more.

    python train_step_stock.py FOLDER 0,3,1    # folder of random_paligemma.py, and order of samples; one line of JSON
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import (
    AutoProcessor,
    PaliGemmaForConditionalGeneration,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

IMPORTED = int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


class Clock(TrainerCallback):
    """Wall and processor seconds and loss of every step; reading the data is not in it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.processor: list[float] = []
        self.losses: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._begun = time.perf_counter(), time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self._begun[0])
        self.processor.append(time.process_time() - self._begun[1])

    def on_log(self, *_: Any, logs: Any = None, **__: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("order", help="index of the sample of every step, joined by commas")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rank", type=int, default=8)
    options = parser.parse_args()

    dtype = torch.bfloat16 if options.bfloat16 else torch.float32
    processor = AutoProcessor.from_pretrained(options.folder, local_files_only=True)
    model = PaliGemmaForConditionalGeneration.from_pretrained(options.folder, dtype=dtype, local_files_only=True)
    model.to(options.device)
    set_seed(0)
    layers = r".*language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
    lora = LoraConfig(
        r=options.rank,
        lora_alpha=2 * options.rank,
        lora_dropout=0.0,
        target_modules=layers,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, lora)

    def collate(rows: list[dict[str, str]]) -> Any:
        return processor(
            text=[f"<image>report indication: {row['indication']}" for row in rows],
            images=[Image.open(options.folder / row["image"]).convert("RGB") for row in rows],
            suffix=[f"IMPRESSION: {row['impression']}" for row in rows],
            return_tensors="pt",
            padding="longest",
        ).to(dtype)

    samples = json.loads((options.folder / "samples.json").read_text())
    rows = [samples[int(index)] for index in options.order.split(",")]
    clock = Clock()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(options.folder / "stock"),
            max_steps=len(rows) // options.batch,
            per_device_train_batch_size=options.batch,
            learning_rate=1e-3,
            weight_decay=0.0,
            max_grad_norm=1.0,
            lr_scheduler_type="cosine",
            gradient_checkpointing=options.checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            bf16=options.bfloat16,
            logging_steps=1,
            save_strategy="no",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            report_to=[],
            disable_tqdm=True,
            use_cpu=options.device == "cpu",
        ),
        train_dataset=rows,
        data_collator=collate,
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(rows)
    trainer.train()
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    tokens = collate(rows[:1])["input_ids"].shape[1]
    json.dump(
        {
            "seconds": clock.seconds,
            "processor": clock.processor,
            "losses": clock.losses,
            "imported_mb": IMPORTED,
            "peak_mb": peak,
            "gpu_peak_mb": torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None,
            "tokens": tokens,
            "attention": model.get_base_model().model.language_model.config._attn_implementation,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
