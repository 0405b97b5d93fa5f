"""Every command, killed with SIGKILL at random moments and repeated, gives the results of an undisturbed run.

The repeated command must end with exit code 0, the same files with the same content, nothing else on the disk, and no
point of a curve twice in MLflow.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from attack.killing import Running, content_below, import_everything, names_below, repeated_points, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
KILLS = 20

CASES = {
    "ingest": ("ingest -i {demo}/phantoms --layout mimic-cxr -o {out}", 1),
    "ingest, 2 workers": ("ingest -i {demo}/phantoms --layout mimic-cxr -o {out} --workers 2", 1),
    "train": ("train {train} -o {out}", 1),
    "train, 2 processes": ("train {train} -o {out}", 2),
    "generate": (
        "generate -i {demo}/ingest -o {out} --split all {generate}",
        1,
    ),
    "generate from DICOM": (
        "generate -i {demo}/phantoms -o {out} {generate}",
        1,
    ),
    "evaluate": (
        "evaluate -p {demo}/generate -r {demo}/ingest -o {out} --radgraph tiny --set most_frequent=true",
        1,
    ),
    "merge": ("merge {demo}/train/adapter {out}", 1),
    "export": ("export -p {demo}/generate -i {demo}/ingest -o {out} --sources {demo}/phantoms", 1),
    "review": ("review -e {demo}/evaluate -i {demo}/ingest -o {out}/review.html", 1),
}


def words_of(case: str, demo: Path, out: Path) -> list[str]:
    train = (
        f"-i {demo}/ingest -c tiny --max-steps 4 --radgraph tiny --set batch_size=1 --set save_every=1 "
        "--set eval_every=2 --set validation.studies=2 --set gradient_checkpointing=false"
    )
    generate = f"-a {demo}/train/adapter --batch-size 4 --set shard_size=4 --set max_new_tokens=32"
    return CASES[case][0].format(demo=demo, out=out, train=train, generate=generate).split()


def with_store(folder: Path, demo: Path) -> Path:
    """An output below a new folder with a store: creating it takes longer than most commands."""
    folder.mkdir()
    shutil.copyfile(demo.parent / "empty.db", folder / "mlflow.db")
    return folder / "out"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.replace(", ", "-").replace(" ", "-"))
def test_a_killed_command_is_repeated(case, demo, tmp_path, own_temporary_folder, note):
    ranks = CASES[case][1]
    options: dict[str, Any] = {"ranks": ranks, "TMPDIR": str(own_temporary_folder)}
    undisturbed = with_store(tmp_path / "undisturbed", demo)
    import_everything(tmp_path / "import.log")
    options["MLFLOW_TRACKING_URI"] = f"sqlite:///{undisturbed.parent}/mlflow.db"
    seconds = run(words_of(case, demo, undisturbed), tmp_path / "undisturbed.log", **options)
    expected, files = content_below(undisturbed), names_below(undisturbed.parent)
    moments = random.Random(case)
    hit, failures = 0, []
    for number in range(KILLS):
        out = with_store(tmp_path / f"kill-{number}", demo)
        log = tmp_path / f"{number}.log"
        words = words_of(case, demo, out)
        after = moments.uniform(0, seconds)
        options["MLFLOW_TRACKING_URI"] = f"sqlite:///{out.parent}/mlflow.db"
        hit += Running(words, log, **options).kill(after, which=moments.choice((-1, 0, ranks - 1)))
        where = f"killed after {after:.2f} of {seconds:.2f} s"
        try:
            run(words, log, **options)
        except AssertionError as error:
            failures.append(f"{where}: {error}")
            continue
        found = content_below(out)
        if changed := sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)):
            failures.append(f"{where}: other content: {changed}")
        if names_below(out.parent) != files:
            failures.append(f"{where}: files {sorted(set(names_below(out.parent)) ^ set(files))}")
        if twice := repeated_points(out.parent / "mlflow.db"):
            failures.append(f"{where}: {len(twice)} points twice in MLflow, for example {twice[:3]}")
    left = names_below(own_temporary_folder)
    note(kind="kills", case=case, kills=KILLS, hit=hit, failed=len(failures), seconds=round(seconds, 1), left=len(left))
    assert not left, left
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("case", ["export", "review"])
def test_two_at_once_into_one_folder(case, demo, tmp_path, own_temporary_folder, note):
    """One of them is refused or resumes; whichever is killed, the repeated command gives the usual result."""
    undisturbed = with_store(tmp_path / "undisturbed", demo)
    import_everything(tmp_path / "import.log")
    options: dict[str, Any] = {"TMPDIR": str(own_temporary_folder)}
    uri = f"sqlite:///{undisturbed.parent}/mlflow.db"
    seconds = run(words_of(case, demo, undisturbed), tmp_path / "log", MLFLOW_TRACKING_URI=uri, **options)
    expected, files = content_below(undisturbed), names_below(undisturbed.parent)
    moments = random.Random(f"two {case}")
    hit, refused, failures = 0, 0, []
    for number in range(KILLS):
        out = with_store(tmp_path / f"kill-{number}", demo)
        words, log = words_of(case, demo, out), tmp_path / f"{number}.log"
        options["MLFLOW_TRACKING_URI"] = f"sqlite:///{out.parent}/mlflow.db"
        victim = Running(words, log, **options)
        other = Running(words, tmp_path / f"{number}-other.log", **options)
        if moments.random() < 0.5:
            victim, other = other, victim
        after = moments.uniform(0, seconds)
        hit += victim.kill(after)
        code = other.wait()
        refused += code != 0
        said = other.log.read_text()
        if code and ("Traceback" in said or "another run" not in said):
            failures.append(f"the other, after {after:.2f} s: exit code {code}: {said[-500:]}")
        run(words, log, **options)
        if content_below(out) != expected or names_below(out.parent) != files:
            failures.append(f"killed after {after:.2f} of {seconds:.2f} s: other files or content")
    left = names_below(own_temporary_folder)
    note(kind="two at once", case=case, kills=KILLS, hit=hit, refused=refused, failed=len(failures), left=len(left))
    assert not left and not failures, "\n".join([*left, *failures])


def test_a_killed_sync_is_repeated(demo, tmp_path, note):
    from mlflow import MlflowClient

    template = tmp_path / "template"
    with_store(template, demo)
    client = MlflowClient(f"sqlite:///{template}/mlflow.db")
    run_id = client.create_run(client.create_experiment("x", (tmp_path / "artifacts").as_uri())).info.run_id
    points = [{"kind": "metrics", "run_id": run_id, "name": "loss", "value": 1 / step} for step in range(1, 6001)]
    events = [{"kind": "store", "uri": "sqlite:///STORE"}]
    events += [point | {"step": step, "time": step} for step, point in enumerate(points)]
    events += [{"kind": "artifact", "run_id": run_id, "path": str(demo / "summary.json"), "folder": None}]
    events += [{"kind": "tags", "run_id": run_id, "name": f"t{n}", "value": "v"} for n in range(40)]
    events += [{"kind": "status", "run_id": run_id, "status": "FINISHED"}]
    moments, hit, seconds = random.Random("sync"), 0, 0.0
    import_everything(tmp_path / "import.log")
    for number in range(-1, KILLS):  # the first is not killed
        folder = tmp_path / f"kill-{number}"
        shutil.copytree(template, folder)
        unsent = folder / f".mlflow-unsent-{run_id}.jsonl"
        lines = "".join(json.dumps(event) + "\n" for event in events)
        unsent.write_text(lines.replace("sqlite:///STORE", f"sqlite:///{folder}/mlflow.db"))
        log = tmp_path / f"{number}.log"
        if number >= 0:
            hit += Running(["sync", str(folder)], log).kill(moments.uniform(0, seconds))
        took = run(["sync", str(folder)], log)
        seconds = seconds or took
        stored = MlflowClient(f"sqlite:///{folder}/mlflow.db")
        history = stored.get_metric_history(run_id, "loss")
        assert sorted(point.step for point in history) == list(range(6000))
        assert stored.get_run(run_id).info.status == "FINISHED" and len(stored.get_run(run_id).data.tags) >= 40
        assert not [name for name in names_below(folder) if name != "mlflow.db"]
    note(kind="kills", case="sync", kills=KILLS, hit=hit, failed=0, seconds=round(seconds, 1), left=0)
