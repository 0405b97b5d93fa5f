"""RadGraph's model on batches of texts, with the annotations of one text at a time.

Most of the time is spent in the matrix products of the encoder, which are slow for the few rows of one report. The
encoder therefore reads many reports at once. Everything after it (spans, heads, decisions) is computed report by report
in the shapes of the package; on a CPU, linear layers use a second copy of their weights in oneDNN's layout. The results
differ in their last bits, so a near tie could be decided differently. To rule this out, every decision has a margin
(the best label of a span or pair over the second best, the last span that is kept over the first that is not), and a
report with a margin below `TOLERANCE` is annotated again alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cxrreport.evaluation.radgraph import compat
from cxrreport.evaluation.radgraph.compat import Graph

TOLERANCE = 2e-5
"""Smallest margin, relative to the largest score of its kind in the report: at least six times the rounding error of a
score (measured in `docs/evaluation.md`)."""
ROWS = 1024
"""Largest number of word pieces of one batch, padding included."""
TEXTS = 32
"""Largest number of texts of one batch."""


@dataclass(slots=True)
class _Scores:
    """The scores that decide the annotation of one report.

    Args:
        labels: float32[spans, labels]; the first label is "none".
        spans: int64[spans, 2].
        kept: float32[spans], scores by which spans are selected for relations.
        relations: float32[k, k, relations] of the k selected spans; the first relation is "none".
        ends: int64[k, 2], the selected spans.
    """

    labels: torch.Tensor
    spans: torch.Tensor
    kept: torch.Tensor
    relations: torch.Tensor
    ends: torch.Tensor

    def sure(self) -> bool:
        """True if rounding cannot have changed any decision."""
        best = self.kept.sort(descending=True).values
        count = len(self.ends)
        selected = best[count - 1] - best[count] if count < len(best) else best.new_tensor(torch.inf)
        margins = (
            (_margin(self.labels), self.labels),
            (_margin(self.relations), self.relations),
            (selected, self.kept),
        )
        return all(bool(margin > TOLERANCE * scores.abs().max()) for margin, scores in margins)

    def close_to(self, other: _Scores) -> bool:
        """True if all scores equal those of `other` within `TOLERANCE`."""
        pairs = [(self.labels, other.labels), (self.kept, other.kept)]
        if torch.equal(self.ends, other.ends):
            pairs.append((self.relations, other.relations))
        return all(bool((one - two).abs().max() <= TOLERANCE * two.abs().max()) for one, two in pairs)


def _margin(scores: torch.Tensor) -> torch.Tensor:
    """The smallest margin of a best score over the second best."""
    first, second = scores.topk(2, dim=-1).values.unbind(-1)
    return (first - second).min()


class _Encoder(torch.nn.Module):
    """The encoder of the package, or its precomputed output for one text."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.output: torch.Tensor | None = None

    def forward(self, **arguments: torch.Tensor) -> Any:
        return self.encoder(**arguments) if self.output is None else (self.output,)


class _Packed(torch.nn.Module):
    """A linear layer with a copy of its weights in oneDNN's layout, as `torch.compile` would use it.

    The packed product is faster and rounds differently; it is used while `batched` is true.
    """

    batched = False

    def __init__(self, layer: torch.nn.Linear, pack: Any, multiply: Any) -> None:
        super().__init__()
        self.layer = layer
        self._weight = pack(layer.weight.detach(), ROWS)
        self._multiply = multiply

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor
        product = self._multiply(x, self._weight, self.layer.bias, "none", [], "") if self.batched else self.layer(x)
        return product


def _pack(model: torch.nn.Module) -> list[_Packed]:
    """Pack the linear layers within `model` that run on the CPU, if torch has oneDNN."""
    if (functions := compat.packed_linear()) is None:
        return []
    layers = [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, torch.nn.Linear) and layer.weight.device.type == "cpu"
    ]
    packed = [_Packed(layer, *functions) for _, _, layer in layers]
    for (parent, name, _), layer in zip(layers, packed, strict=True):
        setattr(parent, name, layer)
    return packed


class BatchedModel:
    """A DyGIE model that annotates batches of texts. It replaces parts of the given model.

    Args:
        model: model of the package, with weights.
        dataset: name in the model's label namespaces.

    Raises:
        UnsupportedVersionError: the installed radgraph has no such parts.
    """

    def __init__(self, model: Any, dataset: str) -> None:
        parts = compat.model_parts(model)
        self._model = model
        self._names = [
            model.vocab.get_index_to_token_vocabulary(f"{dataset}__{kind}_labels") for kind in ("ner", "relation")
        ]
        self._max_length = parts.max_length
        # A mix of all layers needs outputs that are not kept here; no published model has one.
        self._one_by_one = parts.mixes_layers
        self._encoder = _Encoder(parts.embedder.transformer_model)
        parts.embedder.transformer_model = self._encoder
        self._packed = _pack(model)
        self._seen: dict[str, Any] = {}
        # The package would convert the scores into one object per span and pair.
        parts.entities.predict = self._take_labels
        parts.relations.predict = self._take_relations
        for scorer in parts.span_scorers:
            scorer.register_forward_hook(self._take_kept)

    def _take_labels(self, scores: torch.Tensor, spans: torch.Tensor, *_: object) -> list[Any]:
        self._seen |= {"labels": scores[0], "spans": spans[0]}
        return []

    def _take_relations(self, ends: torch.Tensor, scores: torch.Tensor, *_: object) -> tuple[list[Any], list[Any]]:
        self._seen |= {"ends": ends[0], "relations": scores[0]}
        return [], []

    def _take_kept(self, _module: object, _arguments: object, scores: torch.Tensor) -> None:
        self._seen["kept"] = scores.detach().cpu().reshape(-1)

    def annotate(self, texts: Sequence[dict[str, Any]]) -> list[Graph]:
        """Annotate one batch (see `batches`).

        Args:
            texts: per text the arguments of the model: `text`, `spans`, `metadata`.
        """
        graphs = []
        for text, encoded in zip(texts, self._encode(texts), strict=True):
            scores = self._scores(text, encoded)
            if encoded is not None and not scores.sure():
                scores = self._scores(text, None)
            graphs.append(self._graph(scores))
        return graphs

    def differences(self, texts: Sequence[dict[str, Any]], expected: Sequence[Graph]) -> str:
        """Compare a batch with its texts one by one, and these with the annotations of the package.

        Args:
            texts: see `annotate`.
            expected: graphs of the same texts from the unchanged model.

        Returns:
            what differs; empty if nothing does.
        """
        one_by_one = [self._scores(text, None) for text in texts]
        if [self._graph(scores) for scores in one_by_one] != list(expected):
            return "entities or relations differ from those of the package"
        batch = [self._scores(text, encoded) for text, encoded in zip(texts, self._encode(texts), strict=True)]
        if not all(scores.close_to(other) for scores, other in zip(batch, one_by_one, strict=True)):
            return "the scores of a text depend on its batch"
        return ""

    def _encode(self, texts: Sequence[dict[str, Any]]) -> list[torch.Tensor | None]:
        """The encoder's output for each text of a batch; `None` if it has to read the text alone."""
        rows = [text["text"]["bert"]["token_ids"].reshape(-1) for text in texts]
        longest = max(len(row) for row in rows)
        if self._one_by_one or len(texts) == 1 or (self._max_length is not None and longest > self._max_length):
            return [None] * len(texts)
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows], device=ids.device)
        mask = torch.arange(longest, device=ids.device) < lengths[:, None]
        self._set(batched=True)
        encoded = self._encoder(input_ids=ids, attention_mask=mask.float())[0]
        return [one[None, : len(row)] for one, row in zip(encoded, rows, strict=True)]

    def _scores(self, text: dict[str, Any], encoded: torch.Tensor | None) -> _Scores:
        self._seen.clear()
        self._set(batched=encoded is not None)
        self._encoder.output = encoded
        try:
            self._model(**text)
        finally:
            self._encoder.output = None
        return _Scores(**self._seen)

    def _set(self, *, batched: bool) -> None:
        for layer in self._packed:
            layer.batched = batched

    def _graph(self, scores: _Scores) -> Graph:
        """The entities and relations that the package would derive from the scores, in its order."""
        labels, relations = self._names
        kinds = scores.labels.max(dim=-1).indices
        entities = [
            (start, end, labels[kind])
            for (start, end), kind in zip(scores.spans.tolist(), kinds.tolist(), strict=True)
            if kind
        ]
        place = {(start, end): number for number, (start, end, _) in enumerate(entities)}
        ends = [tuple(span) for span in scores.ends.tolist()]
        kinds = scores.relations.max(dim=-1).indices
        outgoing: dict[tuple[int, ...], list[tuple[str, int]]] = {}
        for head, tail in kinds.nonzero().tolist():
            if ends[tail] in place:
                outgoing.setdefault(ends[head], []).append((relations[int(kinds[head, tail]) - 1], place[ends[tail]]))
        return [(start, end, label, outgoing.get((start, end), [])) for start, end, label in entities]


def span_table(tokens: int, widest: int) -> torch.Tensor:
    """All spans of at most `widest` tokens in the order of the package: int64[spans, 2], first and last token."""
    starts = torch.arange(tokens)[:, None].expand(tokens, widest)
    ends = starts + torch.arange(widest)
    return torch.stack([starts, ends], dim=-1)[ends < tokens]


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Group texts of similar length, short ones first; yields the indices of the texts of each batch."""
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: lengths[number]):
        if batch and (len(batch) == TEXTS or (len(batch) + 1) * lengths[number] > ROWS):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
