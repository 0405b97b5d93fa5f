"""Training on the metric against further fine-tuning, and consensus against greedy decoding.

    python benchmarks/reward.py                       # one seed, all of it
    python benchmarks/reward.py --steps 10 --test 60  # as a trial

An adapter of the tiny checkpoint is fine-tuned on 200 phantom studies, whose reports leave things out. From it, one run
trains on the metric, and a second fine-tuning has as many more steps as fit into the same processor time. An adapter
that saw the studies once decodes greedily and by consensus of eight samples. All write reports for phantoms of other
patients. Differences are paired, with intervals from a bootstrap over patients.

The last line is a JSON object. `*_gain_low` are lower ends of 95% intervals, `*_delta` are differences of values, all
new minus old.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parent.parent)  # not this folder: radgraph.py has the name of a package

from cxrreport import runs
from cxrreport.demo.phantoms.files import read_truth, write_planned
from cxrreport.demo.phantoms.grammar import Mentions
from cxrreport.demo.phantoms.studies import plan_studies
from cxrreport.demo.phantoms.text_findings import read_findings
from cxrreport.demo.pipeline import HEADLINE, train_settings
from cxrreport.evaluation.evaluate import MAIN, Evaluation
from cxrreport.evaluation.inputs.tables import read_predictions
from cxrreport.runs.command import silent
from cxrreport.settings import (
    ConsensusSettings,
    EvaluateSettings,
    GenerateSettings,
    IngestSettings,
    RewardSettings,
    Sampling,
    TrackingSettings,
    TrainSettings,
)

UNTRACKED = TrackingSettings(enabled=False)
VALIDATION = 96
METRICS = ("radgraph", "clinical", "cxrreport.demo.finding_metric:finding_f1")
"""Also of the reward. Findings of `clinical` have no side and no size, so a reward of these neglects both."""


def phantoms(folder: Path, *, train: int, test: int, seed: int, mentions: Mentions | None) -> None:
    """Phantom studies in the layout of MIMIC-CXR with so many training and test studies; patients are in one split."""
    studies = train + VALIDATION + test
    planned = plan_studies(studies, seed, smallest=360, full_size=0, mentions=mentions)
    write_planned(folder, planned, workers=2, progress=silent)
    table = folder / "mimic-cxr-2.0.0-split.csv.gz"
    with gzip.open(table, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    names: dict[str, str] = {}
    counts = {"train": train, "validate": VALIDATION, "test": test}
    seen: set[str] = set()
    for row in rows:
        if row["subject_id"] not in names:
            names[row["subject_id"]] = next((name for name, left in counts.items() if left > 0), "")
        name = names[row["subject_id"]]
        if name and row["study_id"] not in seen:
            seen.add(row["study_id"])
            counts[name] -= 1
    with gzip.open(table, "wt", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(row | {"split": names[row["subject_id"]]} for row in rows if names[row["subject_id"]])


def trained(settings: TrainSettings) -> tuple[Path, float]:
    """The adapter of a run, and its processor seconds."""
    start = time.process_time()
    result = runs.train(settings).result
    return result.adapter, time.process_time() - start


def generated(root: Path, name: str, adapter: Path, **options: Any) -> tuple[Path, float]:
    """The reports of the test split, and their processor seconds."""
    start = time.process_time()
    settings = GenerateSettings(
        input=root / "ingest", output=root / name, adapter=adapter, max_new_tokens=128, batch_size=128,
        tracking=UNTRACKED, **options,
    )  # fmt: skip
    runs.generate(settings)
    return root / name, time.process_time() - start


def evaluated(root: Path, name: str, predictions: Path, **baselines: Path) -> Evaluation:
    """Scores of a system and its differences from others."""
    settings = EvaluateSettings(
        predictions=predictions, references=root / "ingest", output=root / f"evaluate-{name}", baselines=baselines,
        metrics=METRICS,
        radgraph="tiny", most_frequent=False, tracking=UNTRACKED,
    )  # fmt: skip
    return runs.evaluate(settings).result


def invented(root: Path, predictions: Path) -> float:
    """Findings per report that the image does not have, whatever the reference mentions."""
    truth = read_truth(root / "phantoms")
    texts = read_predictions(predictions, "findings+impression").texts
    return sum(len(read_findings(text or "") - truth[study]) for study, text in texts.items()) / len(texts)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder to work in and to resume from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=200, help="training studies")
    parser.add_argument("--test", type=int, default=960, help="test studies")
    parser.add_argument("--start-steps", type=int, default=250, help="steps of the first fine-tuning")
    parser.add_argument("--undertrained", type=int, default=25, help="steps of the adapter of consensus")
    parser.add_argument("--steps", type=int, default=30, help="steps on the metric")
    parser.add_argument("--rate", type=float, default=6e-4, help="learning rate on the metric")
    parser.add_argument("--temperature", type=float, default=0.7, help="of the samples of consensus")
    parser.add_argument("--regular", action="store_true", help="reports that mention everything")
    given = parser.parse_args()
    root = given.root or Path(tempfile.mkdtemp())
    if not (root / "ingest" / "ingest.json").exists():
        mentions = None if given.regular else Mentions()
        phantoms(root / "phantoms", train=given.train, test=given.test, seed=given.seed, mentions=mentions)
    runs.ingest(
        IngestSettings(
            input=root / "phantoms", output=root / "ingest", layout="mimic-cxr", resolution=224, tracking=UNTRACKED
        )
    )
    recipe = train_settings(
        root, data=root / "ingest", output=root / "start", seed=given.seed, tracking=UNTRACKED.model_dump()
    )
    recipe = recipe.model_copy(update={"validation": recipe.validation.model_copy(update={"studies": VALIDATION})})

    def fine_tuned(name: str, steps: int, every: int) -> tuple[Path, float]:
        return trained(recipe.model_copy(update={"output": root / name, "max_steps": steps, "eval_every": every}))

    start, fine_tuning = fine_tuned("start", given.start_steps, given.start_steps)
    print(f"fine-tuned for {given.start_steps} steps: {fine_tuning:.0f} processor seconds", flush=True)
    rewarded, seconds = trained(
        recipe.model_copy(
            update={
                "output": root / "rewarded", "objective": "reward", "max_steps": given.steps, "batch_size": 16,
                "accumulation": 4,
                "eval_every": max(1, given.steps // 3), "learning_rate": given.rate,
                "reward": RewardSettings(
                    adapter=start,
                    radgraph="tiny",
                    metrics=METRICS,
                    weights=RewardSettings().weights | {"findings_f1": 0.0, "finding_f1": 1.0},
                ),
            }
        )
    )  # fmt: skip
    more = round(given.start_steps * seconds / fine_tuning) if fine_tuning else given.start_steps
    print(f"trained on the metric: {seconds:.0f} processor seconds, as {more} steps of fine-tuning", flush=True)
    continued, other = fine_tuned("continued", given.start_steps + more, max(1, more // 3))
    print(f"fine-tuned for {given.start_steps + more} steps: {other:.0f} processor seconds", flush=True)
    undertrained, _ = fine_tuned("undertrained", given.undertrained, given.undertrained)
    greedy, greedy_seconds = generated(root, "greedy", undertrained)
    consensus, consensus_seconds = generated(
        root, "consensus", undertrained, samples=8, consensus=ConsensusSettings(radgraph="tiny"),
        decoding=Sampling(temperature=given.temperature),
    )  # fmt: skip
    of = {"start": generated(root, "of-start", start)[0], "rewarded": generated(root, "of-rewarded", rewarded)[0]}
    of["continued"] = generated(root, "of-continued", continued)[0]
    for name, adapter in (("rewarded", rewarded), ("continued", continued)):
        of[f"{name}_shuffled"] = generated(root, f"of-{name}-shuffled", adapter, baseline="shuffled")[0]
    first = evaluated(root, "rewarded", of.pop("rewarded"), **of)
    second = evaluated(root, "consensus", consensus, greedy=greedy)
    scores = {name: {number: round(one[number].value, 4) for number in (HEADLINE, "finding_f1", "contradictions")}
              for name, one in {**first.systems, "undertrained": second.systems["greedy"],
                             "consensus": second.systems[MAIN]}.items()}  # fmt: skip
    print(json.dumps(scores, indent=1))
    gain, over_start = first.differences["continued"], first.differences["start"]
    diversity = first.analyses["diversity"]["systems"]
    reliance = [
        first.systems[name][HEADLINE].value - first.systems[f"{shuffled}_shuffled"][HEADLINE].value
        for name, shuffled in ((MAIN, "rewarded"), ("continued", "continued"))
    ]
    print(
        json.dumps(
            {
                "radgraph_gain_low": round(gain[HEADLINE].low, 4),
                "finding_gain_low": round(gain["finding_f1"].low, 4),
                "contradictions_delta": round(gain["contradictions"].value, 4),
                "duplicates_delta": round(diversity[MAIN]["identical"] - diversity["continued"]["identical"], 4),
                "image_reliance_delta": round(reliance[0] - reliance[1], 4),
                "consensus_gain_low": round(second.differences["greedy"][HEADLINE].low, 4),
                "radgraph_gain": round(gain[HEADLINE].value, 4),
                "finding_gain": round(gain["finding_f1"].value, 4),
                "hallucinated_findings_delta": round(gain["hallucinated_findings"].value, 4),
                "invented_findings_delta": round(
                    invented(root, root / "of-rewarded") - invented(root, root / "of-continued"), 4
                ),
                "radgraph_gain_over_start": round(over_start[HEADLINE].value, 4),
                "radgraph_gain_over_start_low": round(over_start[HEADLINE].low, 4),
                "finding_gain_over_start": round(over_start["finding_f1"].value, 4),
                "finding_gain_over_start_low": round(over_start["finding_f1"].low, 4),
                "consensus_gain": round(second.differences["greedy"][HEADLINE].value, 4),
                "consensus_cost": round(consensus_seconds / greedy_seconds, 2) if greedy_seconds else None,
                "seed": given.seed,
                "start_seconds": round(fine_tuning),
                "reward_seconds": round(seconds),
                "continued_seconds": round(other),
            }
        )
    )


if __name__ == "__main__":
    main()
