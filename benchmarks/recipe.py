"""Choices of the fine-tuning recipe, each against the same recipe without it, over several seeds, on phantoms.

    python benchmarks/recipe.py --root FOLDER                    # all variants, three seeds, 224 px; hours, resumes
    python benchmarks/recipe.py --root FOLDER --only rank-8 rank-64
    python benchmarks/recipe.py --root FOLDER --resolution 896   # the demo's settings at 896 px
    python benchmarks/recipe.py --steps 10 --patients 60 --seeds 0 --only rank-8     # as a trial

Seeds differ in phantoms, sample order and initial adapter. A variant changes the fields of `VARIANTS` in the settings
of the demo's training. Its reports for the test split are compared with those of the unchanged recipe of the same seed:
paired differences with intervals from a bootstrap over patients. A score is better or worse if the intervals of all
seeds are on one side of zero. `rank-stabilised` has rank 64, because it equals another alpha at the default rank.

Printed is a table in Markdown. The last line is a JSON object: variant to score to value, difference and verdict.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parent.parent)  # not this folder: radgraph.py has the name of a package

from cxrreport import runs
from cxrreport.demo.phantoms.files import write_studies
from cxrreport.demo.pipeline import HEADLINE, SCALES, train_settings
from cxrreport.runs.command import silent
from cxrreport.settings import EvaluateSettings, GenerateSettings, IngestSettings, TrackingSettings
from cxrreport.storage.atomic_files import write_json

UNTRACKED = TrackingSettings(enabled=False)
BASE = "default"
LORA = {"rank": 16, "alpha": 32, "dropout": 0.0, "targets": "language+projector"}
VARIANTS: dict[str, dict[str, Any]] = {
    BASE: {},
    "language": {"lora": LORA | {"targets": "language"}},
    "with-tower": {"lora": LORA | {"targets": "language+projector+vision"}},
    "rank-8": {"lora": LORA | {"rank": 8, "alpha": 16}},
    "rank-64": {"lora": LORA | {"rank": 64, "alpha": 128}},
    "rank-stabilised": {"lora": LORA | {"rank": 64, "alpha": 32, "rank_stabilised": True}},
    "rate-third": {"learning_rate": 1e-3},
    "rate-double": {"learning_rate": 6e-3},
    "per-token": {"loss": "per-token"},
    "augmented": {"augment": True},
    "third-of-steps": {"max_steps": 1 / 3},
    "three-times-steps": {"max_steps": 3},
}
"""Changes to the settings of `train`; `max_steps` as a factor."""
SCORES = (HEADLINE, "finding_f1", "contradictions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder to work in and to resume from")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=[*VARIANTS], default=[*VARIANTS], help="variants")
    parser.add_argument("--resolution", type=int, choices=[*SCALES], default=224)
    parser.add_argument("--patients", type=int)
    parser.add_argument("--steps", type=int, help="steps of the default")
    given = parser.parse_args()
    root = given.root or Path(tempfile.mkdtemp())
    names = [BASE, *(name for name in given.only if name != BASE)]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for seed in given.seeds:
        for name in names:
            found[name].append(run(root / f"{given.resolution}-{seed}", name, seed, given))
            print(f"seed {seed}, {name}: {json.dumps(found[name][-1])}", flush=True)
    result = {name: summary(rows) for name, rows in found.items()}
    print("\n" + table(result) + "\n")
    print(json.dumps({"resolution": given.resolution, "seeds": given.seeds, "variants": result}))


def run(root: Path, name: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Train, generate and evaluate one variant; what an earlier call finished is read."""
    scale, data, file = SCALES[given.resolution], root / "ingest", root / name / "result.json"
    if file.exists():
        read: dict[str, Any] = json.loads(file.read_text())
        return read
    if not (root / "phantoms" / "done").exists():
        write_studies(
            root / "phantoms", patients=given.patients or scale.patients, seed=seed, smallest=scale.smallest,
            full_size=scale.full_size, workers=2, progress=silent,
        )  # fmt: skip
        (root / "phantoms" / "done").touch()
    runs.ingest(
        IngestSettings(
            input=root / "phantoms", output=data, layout="mimic-cxr", resolution=given.resolution, tracking=UNTRACKED
        )
    )
    changes = dict(VARIANTS[name])
    steps = given.steps or train_settings(root, given.resolution).max_steps or 0
    changes["max_steps"] = max(1, round(changes.get("max_steps", 1) * steps))
    changes["eval_every"] = max(1, changes["max_steps"] // 3)
    start = time.process_time()
    recipe = train_settings(
        root,
        given.resolution,
        data=data,
        output=root / name / "train",
        seed=seed,
        tracking={"enabled": False},
        **changes,
    )
    trained = runs.train(recipe).result
    seconds = time.process_time() - start
    reports = GenerateSettings(
        input=data, output=root / name / "reports", adapter=trained.adapter, max_new_tokens=128, tracking=UNTRACKED,
        **{"batch_size": 32, **scale.generate},
    )  # fmt: skip
    runs.generate(reports)
    scored = EvaluateSettings(
        predictions=reports.output, references=data, output=root / name / "evaluate",
        baselines={} if name == BASE else {BASE: root / BASE / "reports"}, most_frequent=False, radgraph="tiny",
        metrics=("radgraph", "clinical", "cxrreport.demo.finding_metric:finding_f1"), tracking=UNTRACKED,
    )  # fmt: skip
    evaluation = runs.evaluate(scored).result
    differences = evaluation.differences.get(BASE, {})
    result = {
        "seconds": round(seconds),
        "parameters": trained.trained_parameters,
        **{score: round(evaluation.systems["model"][score].value, 4) for score in SCORES},
        "differences": {
            score: [round(getattr(differences[score], end), 4) for end in ("value", "low", "high")]
            for score in SCORES
            if score in differences
        },
    }
    write_json(file, result)
    return result


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and whether all intervals are on one side of zero."""
    made: dict[str, Any] = {"seconds": round(statistics.fmean(row["seconds"] for row in rows))}
    for score in SCORES:
        made[score] = {"value": round(statistics.fmean(row[score] for row in rows), 4)}
        if bounds := [row["differences"][score] for row in rows if score in row["differences"]]:
            lower_is_better = score == "contradictions"
            above, below = all(low > 0 for _, low, _ in bounds), all(high < 0 for _, _, high in bounds)
            better, worse = (below, above) if lower_is_better else (above, below)
            made[score] |= {
                "difference": round(statistics.fmean(value for value, _, _ in bounds), 4),
                "lowest": min(low for _, low, _ in bounds),
                "highest": max(high for _, _, high in bounds),
                "verdict": "better" if better else "worse" if worse else "",
            }
    return made


def table(result: dict[str, Any]) -> str:
    """The results in Markdown, one row per variant."""
    lines = [f"| variant | processor s | {' | '.join(SCORES)} |", "|---" * (2 + len(SCORES)) + "|"]
    for name, one in result.items():
        cells = []
        for score in SCORES:
            cell = f"{one[score]['value']:.3f}"
            if "difference" in one[score]:
                cell += " ({difference:+.3f}; {lowest:+.3f} to {highest:+.3f}) {verdict}".format(**one[score])
            cells.append(cell.strip())
        lines.append(f"| {name} | {one['seconds']} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
