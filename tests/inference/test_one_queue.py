"""Shards as one queue: slots that one leaves are given to the next, as on a GPU, with the same texts."""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from generation import NEW, Crowded, engine, predictions, widths

from cxrreport.errors import InferenceError
from cxrreport.inference.decoding.requests import PreparedRequest
from cxrreport.inference.decoding.slot_scheduling import RequestQueue, Slots, decode
from cxrreport.inference.read_ahead import ReadAhead
from cxrreport.inference.shards import Shards
from cxrreport.model import capacity

pytestmark = pytest.mark.stock("transformers", "peft")


@pytest.fixture
def one_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(capacity.ONE_QUEUE, "cpu", True)


def streamed(one: Any, groups: Sequence[Sequence[Any]], *, late: int = 0) -> list[tuple[int, ...]]:
    """Tokens of the requests of all groups. A group is only ready after it has been asked for `late` times."""
    remaining, asked = iter(groups), 0
    count = 0

    def take(wait: bool) -> Any:
        nonlocal asked, count
        asked += 1
        if not wait and asked <= late:
            return None
        asked = 0
        group = next(remaining, None)
        if group is None:
            return None
        count += len(group)
        return one.prepare(group, first=count - len(group))

    found = dict(one.stream(take))
    return [found[number].ids for number in range(count)]


def in_groups(requests: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [requests[start : start + size] for start in range(0, len(requests), size)]


def test_slots_are_full_until_the_last_prompt(loaded, layout, requests, batched, monkeypatch) -> None:
    many = [dataclasses.replace(one, study_id=f"{turn} {one.study_id}") for turn in range(4) for one in requests]
    groups = in_groups(many, 7)
    expected = [one.ids for one in batched] * 4
    seen = widths(monkeypatch, loaded)
    one = engine(loaded, layout, batch_size=4)
    apart = [ids for group in groups for ids in streamed(one, [group])]
    steps_apart = [rows for rows, columns in seen if columns == 1]
    seen.clear()
    joined = streamed(one, groups)
    last = max(place for place, (_, columns) in enumerate(seen) if columns > 1)
    steps = [rows for rows, columns in seen if columns == 1]
    assert apart == joined == expected
    assert {rows for rows, columns in seen[:last] if columns == 1} == {4}
    assert sum(steps) == sum(steps_apart)
    assert len(steps) <= sum(steps) / 4 + NEW


def steps_of(groups: Sequence[Sequence[int]], slots: int) -> int:
    """Steps of decoding for texts of so many tokens, group by group from one source, without a model."""
    lengths = [length for group in groups for length in group]
    numbers = iter(range(len(lengths)))
    prepared = iter([[request(next(numbers), length) for length in group] for group in groups])
    steps = 0

    def step(tokens: Sequence[int], places: Sequence[int]) -> torch.Tensor:
        nonlocal steps
        steps += 1
        return torch.zeros(len(tokens), 1)

    def allocate(waiting: Sequence[Any]) -> Slots:
        cache: Any = SimpleNamespace(
            slots=min(len(waiting), slots), accepts_new_prompts=True, copy_slot=lambda source, target: None
        )
        return Slots(cache, 512, slots, step)

    passes: Any = SimpleNamespace(read_prompts=lambda unread, cache, first: torch.zeros(len(unread), 1))
    choice: Any = SimpleNamespace(
        eos_id=1,
        random_numbers=lambda one: random.Random(0),
        choose=lambda logits, some, uniform: [(5, 0.0)] * len(some),  # texts end at their limit
    )
    queue = RequestQueue(lambda wait: next(prepared, None))
    limits = {"batch_size": slots, "read_at_once": 10**6}
    finished = [one.index for one, *_ in decode(queue, allocate, passes, choice, **limits)]
    assert sorted(finished) == list(range(len(lengths)))
    return steps


def request(number: int, tokens: int) -> PreparedRequest:
    return PreparedRequest(number, None, "", None, (str(number),), tokens, 256)  # type: ignore[arg-type]


@pytest.mark.parametrize(("slots", "apart", "joined"), [(8, 11259, 10222), (64, 2910, 1341), (128, 2910, 723)])
def test_steps_of_a_run_of_sixteen_shards(slots: int, apart: int, joined: int) -> None:
    """1,024 texts of 30 to 200 tokens, 81 on average. Without a queue, 9, 56 and 78% of the slots are idle."""
    draw = random.Random(0)
    groups = [[min(200, max(30, round(draw.lognormvariate(4.3, 0.4)))) for _ in range(64)] for _ in range(16)]
    assert (sum(steps_of([group], slots) for group in groups), steps_of(groups, slots)) == (apart, joined)


@pytest.mark.parametrize("late", [1, 7])
def test_open_texts_do_not_wait_for_the_next_group(loaded, layout, requests, batched, late: int) -> None:
    found = streamed(engine(loaded, layout, batch_size=3), in_groups(requests, 2), late=late)
    assert found == [one.ids for one in batched]


def test_groups_that_need_longer_or_more_slots_get_them(loaded, layout, requests, monkeypatch) -> None:
    several = [dataclasses.replace(one, images=one.images * 3, study_id=f"3 {one.study_id}") for one in requests[:4]]
    groups = [requests[:1], requests[1:7], several, requests[7:]]
    expected = [ids for group in groups for ids in streamed(engine(loaded, layout, batch_size=1), [group])]
    seen = widths(monkeypatch, loaded)
    assert streamed(engine(loaded, layout, batch_size=5), groups) == expected
    assert max(rows for rows, columns in seen if columns == 1) == 5


def test_memory_that_runs_out_between_groups_loses_nothing(loaded, layout, requests, batched) -> None:
    crowded = Crowded(loaded.model, 2, torch.OutOfMemoryError("no"))
    one = engine(dataclasses.replace(loaded, model=crowded), layout, batch_size=4)
    assert streamed(one, in_groups(requests, 3)) == [text.ids for text in batched]
    assert one.batch_size == 2


@pytest.mark.parametrize("changes", [{}, {"batch_size": 16}, {"shard_size": 1}, {"prompts": ("caption en", "cough")}])
def test_predictions_are_the_same(run, tmp_path: Path, one_queue, monkeypatch, make_studies, changes) -> None:
    summary = run(tmp_path / "joined", studies=make_studies(20, missing=("i003",)), **changes)
    monkeypatch.setitem(capacity.ONE_QUEUE, "cpu", False)
    apart = run(tmp_path / "apart", studies=make_studies(20, missing=("i003",)), **changes)
    assert (summary.predictions, summary.failed) == (apart.predictions, apart.failed)
    lines = [(tmp_path / name / "predictions.jsonl").read_text().splitlines() for name in ("joined", "apart")]
    assert len(lines[0]) == summary.predictions
    shards = [sorted((tmp_path / name / "shards").iterdir()) for name in ("joined", "apart")]
    assert [path.name for path in shards[0]] == [path.name for path in shards[1]]
    if not changes.get("prompts"):
        first, second = predictions(tmp_path / "joined"), predictions(tmp_path / "apart")
        assert {key: one.text for key, one in first.items()} == {key: one.text for key, one in second.items()}
        assert all(one.mean_logprob == pytest.approx(second[key].mean_logprob, abs=1e-5) for key, one in first.items())


def test_a_shard_is_written_when_its_last_text_is_finished(
    run, tmp_path: Path, one_queue, monkeypatch, make_studies
) -> None:
    """And a run that fails in between keeps the shards that are complete, in whatever order."""
    written: list[int] = []
    write = Shards.write

    def noting(self: Shards, index: int, rows: Any) -> None:
        write(self, index, rows)
        written.append(index)
        if len(written) == 3:
            raise InferenceError("stopped")

    monkeypatch.setattr(Shards, "write", noting)
    with pytest.raises(InferenceError, match="stopped"):
        run(tmp_path / "out", shard_size=2, batch_size=4)
    assert sorted(path.stem for path in (tmp_path / "out/shards").glob("0*")) == [f"{n:05d}" for n in sorted(written)]
    monkeypatch.undo()
    studies = make_studies(20)
    assert run(tmp_path / "out", shard_size=2, studies=studies).resumed == 6
    assert len(studies.read) == 12
    run(tmp_path / "whole", shard_size=2)
    texts = [{k: v.text for k, v in predictions(tmp_path / name).items()} for name in ("out", "whole")]
    assert texts[0] == texts[1]


def test_progress_only_rises(run, tmp_path: Path, one_queue) -> None:
    told: list[int] = []
    run(tmp_path / "out", shard_size=2, progress=lambda done, total, label: told.append(done))
    assert told == sorted(told) and told[-1] == 18


def test_one_item_waits_while_the_next_is_made() -> None:
    made: list[int] = []
    two = threading.Event()

    def items() -> Iterator[int]:
        for number in range(9):
            made.append(number)
            if number == 1:
                two.set()
            yield number

    with ReadAhead(items()) as ahead:
        assert two.wait(5)
        assert made == [0, 1]
        assert [ahead.take(wait=True) for _ in range(9)] == list(range(9))
        assert ahead.take(wait=True) is None
        assert ahead.take(wait=False) is None


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise InferenceError("broken")

    with ReadAhead(items()) as ahead:
        assert ahead.take(wait=True) == 1
        for _ in range(2):
            with pytest.raises(InferenceError, match="broken"):
                ahead.take(wait=True)


def test_leaving_does_not_wait_for_an_item_that_is_being_made() -> None:
    go_on = threading.Event()

    def items() -> Iterator[int]:
        go_on.wait(30)
        yield 1

    with ReadAhead(items()) as ahead:
        assert ahead.take(wait=False) is None
    assert not go_on.is_set()
    go_on.set()
