from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrreport.review.marks import MarkedEntity, Piece, pieces, token_spans


def entity(start: int, end: int, status: str = "matched") -> MarkedEntity:
    return MarkedEntity(tokens="x", label="Observation::definitely present", start=start, end=end, status=status)


def test_text_keeps_its_own_spacing_and_line_breaks() -> None:
    text = "FINDINGS: No  pleural\neffusion."
    tokens = ["FINDINGS", ":", "No", "pleural", "effusion", "."]
    cut = pieces(text, tokens, [entity(3, 4, "missed")])
    assert [piece.text for piece in cut] == ["FINDINGS: No  ", "pleural\neffusion", "."]
    assert [piece.status for piece in cut] == ["", "missed", ""]


def test_neighbouring_entities_stay_apart() -> None:
    cut = pieces("left effusion", ["left", "effusion"], [entity(0, 0), entity(1, 1, "missed")])
    assert [(piece.text, piece.status) for piece in cut] == [("left", "matched"), (" ", ""), ("effusion", "missed")]


def test_an_error_takes_precedence_over_an_overlapping_match() -> None:
    cut = pieces("small left effusion", ["small", "left", "effusion"], [entity(0, 2), entity(1, 1, "hallucinated")])
    assert [(piece.text, piece.status) for piece in cut] == [
        ("small ", ""),
        ("left", "hallucinated"),
        (" effusion", ""),
    ]


def test_tokens_missing_from_the_text_are_shown_as_tokens() -> None:
    # RadGraph's preprocessing writes `` for an escaped quotation mark.
    cut = pieces('a \\"clear\\" lung', ["a", "``", "clear", "``", "lung"], [entity(4, 4)])
    assert cut == [Piece("a `` clear `` "), Piece("lung", "matched", "Observation::definitely present")]


def test_a_token_far_from_its_position_is_not_matched() -> None:
    assert token_spans("no effusion. " + "x " * 40 + "heart", ["no", "heart"]) is None


def test_empty_text_has_no_pieces() -> None:
    assert pieces("", [], []) == []


def test_an_entity_past_the_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="token 3, but there are only 2"):
        pieces("a b", ["a", "b"], [entity(1, 3)])


@pytest.mark.parametrize(("start", "end", "status"), [(2, 1, "matched"), (-1, 0, "matched"), (0, 0, "wrong")])
def test_an_impossible_entity_is_refused(start: int, end: int, status: str) -> None:
    with pytest.raises(ValueError):
        entity(start, end, status)


@settings(deadline=None)  # a machine that is busy with other tests is no mistake
@given(
    st.lists(st.text(alphabet="aé<&_.1", min_size=1, max_size=5), min_size=1, max_size=12),
    st.sampled_from([" ", "\n", "  "]),
    st.data(),
)
def test_pieces_always_give_the_whole_text(tokens: list[str], space: str, data: st.DataObject) -> None:
    starts = data.draw(st.lists(st.integers(0, len(tokens) - 1), max_size=6))
    entities = [entity(at, data.draw(st.integers(at, len(tokens) - 1)), "missed") for at in starts]
    text = space.join(tokens)
    assert "".join(piece.text for piece in pieces(text, tokens, entities)) == text
