"""RadGraph's model over several texts at once, with the annotations of one text at a time.

Most of the time goes into the encoder's matrix products, which are slow on the few rows of one report. So the encoder
reads many reports at once, and all that follows (spans, heads, decisions) is computed report by report, in the shapes
of the package; on a CPU, linear layers run on weights that oneDNN has laid out for it, a second copy in memory. What
is computed then differs in its last bits, and a near tie might fall the other way. That is
ruled out rather than hoped for: every decision has a margin (the best label of a span or pair over the second best, the
last span that is kept over the first that is not), and a report with a margin below `TOLERANCE` is read again alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cxrreport.evaluation.radgraph.annotation_cache import Graph

TOLERANCE = 2e-5
"""Least margin, as part of the largest score of its kind in the report: at least six times what rounding moves a score
by (`docs/evaluation.md` has the measurement)."""
ROWS = 1024
"""Word pieces of one batch, padding included."""
TEXTS = 32


@dataclass(slots=True)
class _Scores:
    """The scores on which the annotation of one report is decided.

    Args:
        labels: float32[spans, labels], the first for none.
        spans: int64[spans, 2].
        kept: float32[spans], by which spans are chosen for relations.
        relations: float32[k, k, relations], the first for none, among the k spans that are kept.
        ends: int64[k, 2], these spans.
    """

    labels: torch.Tensor
    spans: torch.Tensor
    kept: torch.Tensor
    relations: torch.Tensor
    ends: torch.Tensor

    def sure(self) -> bool:
        """True where rounding cannot have made a decision."""
        best = self.kept.sort(descending=True).values
        count = len(self.ends)
        chosen = best[count - 1] - best[count] if count < len(best) else best.new_tensor(torch.inf)
        margins = ((_lead(self.labels), self.labels), (_lead(self.relations), self.relations), (chosen, self.kept))
        return all(bool(margin > TOLERANCE * scores.abs().max()) for margin, scores in margins)


def _lead(scores: torch.Tensor) -> torch.Tensor:
    """The least lead of a best score over the second best."""
    first, second = scores.topk(2, dim=-1).values.unbind(-1)
    return (first - second).min()


class _Encoder(torch.nn.Module):
    """The package's encoder, or what it has already made of a text."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.ready: torch.Tensor | None = None

    def forward(self, **given: torch.Tensor) -> Any:
        return self.encoder(**given) if self.ready is None else (self.ready,)


class _Packed(torch.nn.Module):
    """A linear layer with its weights once more in oneDNN's own layout, whose products are quicker and round otherwise.

    It is how `torch.compile` calls oneDNN; here without a compiler. `batched` chooses: False is the layer as it was.
    """

    batched = False

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        if not self.batched:
            made: torch.Tensor = self.layer(given)
            return made
        packed: torch.Tensor = torch.ops.mkldnn._linear_pointwise(given, self.packed, self.layer.bias, "none", [], "")
        return packed


def _pack(model: torch.nn.Module) -> list[_Packed]:
    """Pack the linear layers inside of `model`, where they run on a CPU for which torch has oneDNN."""
    found = [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, torch.nn.Linear) and layer.weight.device.type == "cpu"
    ]
    made = []
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    for parent, name, layer in found if onednn else []:
        setattr(parent, name, _Packed(layer))
        made.append(getattr(parent, name))
    return made


class BatchedModel:
    """A DyGIE model that annotates texts in batches; it changes the model that it is given.

    Args:
        model: the package's, weights loaded.
        dataset: the name under which the model's labels go.
    """

    def __init__(self, model: Any, dataset: str) -> None:
        self._model = model
        self._names = [
            model.vocab.get_index_to_token_vocabulary(f"{dataset}__{kind}_labels") for kind in ("ner", "relation")
        ]
        embedder = model._embedder.token_embedder_bert._matched_embedder
        self._longest: int | None = embedder._max_length
        # A mix of all layers is made from outputs that are not kept; no published model has one.
        self._alone = embedder._scalar_mix is not None
        self._encoder = _Encoder(embedder.transformer_model)
        embedder.transformer_model = self._encoder
        self._packed = _pack(model)
        self._seen: dict[str, Any] = {}
        # What the package makes of the scores, an object per span and pair, is left out.
        model._ner.predict = self._labels
        model._relation.predict = self._relations
        for pruner in model._relation._mention_pruners.values():
            pruner._scorer.register_forward_hook(self._kept)

    def _labels(self, scores: torch.Tensor, spans: torch.Tensor, *_: object) -> list[Any]:
        self._seen |= {"labels": scores[0], "spans": spans[0]}
        return []

    def _relations(self, ends: torch.Tensor, scores: torch.Tensor, *_: object) -> tuple[list[Any], list[Any]]:
        self._seen |= {"ends": ends[0], "relations": scores[0]}
        return [], []

    def _kept(self, _module: object, _given: object, scores: torch.Tensor) -> None:
        self._seen["kept"] = scores.detach().cpu().reshape(-1)

    @torch.inference_mode()
    def annotate(self, texts: Sequence[dict[str, Any]]) -> list[Graph]:
        """The graphs of one batch (see `batches`).

        Args:
            texts: per text the model's arguments: `text`, `spans`, `metadata`.
        """
        graphs = []
        # A training in bfloat16 validates within autocast; an annotation is in float32 wherever it is asked for.
        with torch.autocast(next(self._model.parameters()).device.type, enabled=False):
            for text, made in zip(texts, self._ahead(texts), strict=True):
                scores = self._scores(text, made)
                if made is not None and not scores.sure():
                    scores = self._scores(text, None)
                graphs.append(self._graph(scores))
        return graphs

    def _ahead(self, texts: Sequence[dict[str, Any]]) -> list[torch.Tensor | None]:
        """What the encoder makes of each text; None where it is to see the text alone."""
        rows = [text["text"]["bert"]["token_ids"].reshape(-1) for text in texts]
        longest = max(len(row) for row in rows)
        if self._alone or len(texts) == 1 or (self._longest is not None and longest > self._longest):
            return [None] * len(texts)
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows], device=ids.device)
        mask = torch.arange(longest, device=ids.device) < lengths[:, None]
        self._set(batched=True)
        made = self._encoder(input_ids=ids, attention_mask=mask.float())[0]
        return [one[None, : len(row)] for one, row in zip(made, rows, strict=True)]

    def _scores(self, text: dict[str, Any], made: torch.Tensor | None) -> _Scores:
        self._seen.clear()
        self._set(batched=made is not None)
        self._encoder.ready = made
        try:
            self._model(**text)
        finally:
            self._encoder.ready = None
        return _Scores(**self._seen)

    def _set(self, *, batched: bool) -> None:
        for layer in self._packed:
            layer.batched = batched

    def _graph(self, scores: _Scores) -> Graph:
        """The entities and relations that the package reads from the scores, in its order."""
        labels, relations = self._names
        kinds = scores.labels.max(dim=-1).indices
        entities = [
            (start, end, labels[kind])
            for (start, end), kind in zip(scores.spans.tolist(), kinds.tolist(), strict=True)
            if kind
        ]
        place = {(start, end): number for number, (start, end, _) in enumerate(entities)}
        ends = [tuple(span) for span in scores.ends.tolist()]
        found = scores.relations.max(dim=-1).indices
        pointing: dict[tuple[int, ...], list[tuple[str, int]]] = {}
        for one, other in found.nonzero().tolist():
            if ends[other] in place:
                pointing.setdefault(ends[one], []).append((relations[int(found[one, other]) - 1], place[ends[other]]))
        return [(start, end, label, pointing.get((start, end), [])) for start, end, label in entities]


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The texts of every batch, by their number: texts of like length together, short ones first."""
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: lengths[number]):
        if batch and (len(batch) == TEXTS or (len(batch) + 1) * lengths[number] > ROWS):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
