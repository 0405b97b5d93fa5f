"""Proposed edits: no deletion or small substitution introduces a false statement."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pytest

from cxrreport.reports.priors import check_proposal, mentions_prior, remove_priors

# A sentence, and all that may be made of it. What is missing here is false, ungrammatical, or leaves a mention.
TRUE = {
    "Nodule was seen previously but is not visible now.": (),
    "The prior pneumonia is no longer evident.": (),
    "Right effusion is not as severe as before.": (),
    "Earlier mild edema has progressed to severe.": (),
    "Effusion was small on ___ and is now moderate.": (),
    "The lungs were clear on the study of ___.": (),
    "The nodule was previously 5 mm and now measures 9 mm.": (),
    "No new infiltrate compared to the previous exam.": (),
    "Small effusions have resolved since ___.": (),
    "Left effusion is slightly decreased on the left.": (),
    "Increase in the left effusion since ___.": (),
    "Prior effusion has drained.": (),
    "Mild edema has replaced the prior severe edema.": (),
    "The tube is in unchanged position.": (),
    "Interval removal of the right line.": (),
    "The chest tube has been removed since ___.": (),
    "Heart size is stable.": (),
    "Compared with the prior, no effusion and stable nodules.": (),
    "The effusion is absent and the tube is unchanged.": (),
    "The previously seen catheter ended in the right atrium.": (),
    "Decreased but persistent left opacity.": ("Left opacity.",),
    "Stable heart size and no effusion.": (),
    "In comparison with the study of ___, there is little overall change.": (),
    "Residual small pneumothorax following chest tube removal.": (),
    "Rib fractures with no significant change in displacement.": ("Rib fractures.",),
    "Left basilar opacity, new from ___, may represent aspiration.": (
        "Left basilar opacity may represent aspiration.",
    ),
    "Small left effusion is unchanged; no pneumothorax.": ("Small left effusion; no pneumothorax.",),
    "The lungs remain free of consolidation.": (
        "The lungs are free of consolidation.",
        "Lungs are free of consolidation.",
    ),
    "Again seen is a large hernia.": ("There is a large hernia.", "There is large hernia."),
    "Mildly worsened interstitial edema.": ("Interstitial edema.",),
    "An unchanged large hernia.": ("A large hernia.", "Large hernia."),
    "Compared to the prior, no pneumothorax is seen.": ("No pneumothorax is seen.",),
    "There is a moderate effusion, increased from the prior.": ("There is a moderate effusion.",),
    "Possible new opacity versus persistent atelectasis.": ("Possible opacity versus atelectasis.",),
    "1. Stable 2.5 cm nodule, no effusion.": ("1. 2.5 cm nodule, no effusion.",),
    "STABLE CARDIOMEGALY.": ("CARDIOMEGALY.",),
}


def proposals(sentence: str) -> Iterator[str]:
    """All deletions of one or two runs of words, with and without commas, and small insertions in their place."""
    words = sentence.removeprefix("1. ").rstrip(".").split()
    runs = list(combinations(range(len(words) + 1), 2))
    for start, end in runs:
        for later, last in runs:
            if later > end:
                yield " ".join(words[:start] + words[end:later] + words[last:])
        if start and words[end - 1][-1] in ",;":  # the word before takes over the punctuation
            yield " ".join([*words[: start - 1], words[start - 1].rstrip(",;") + words[end - 1][-1], *words[end:]])
        for added in ("", "is", "are", "there is", "there are", "a", "an", "no", "new", "large"):
            yield " ".join([*words[:start], *added.split(), *words[end:]])
    for start in range(len(words)):
        for added in ("no", "not", "possible", "left", "and pneumonia", "is", "seen"):
            yield " ".join([*words[:start], *added.split(), *words[start:]])


@pytest.mark.parametrize("sentence", TRUE)
def test_only_true_edits_are_accepted(sentence: str) -> None:
    assert mentions_prior(sentence)
    accepted = set()
    for proposal in proposals(sentence):
        for text in (proposal, proposal.replace(",", ""), proposal.rstrip(",;"), f"{proposal};"):
            edit, outcome = check_proposal(sentence, f"{text}.")
            assert (edit is not None) == (outcome == "accepted")
            accepted.add(edit)
    extra = accepted - {None, *TRUE[sentence]}
    # An article at the beginning may go.
    assert not {text for text in extra if f"The {text[0].lower()}{text[1:]}" not in TRUE[sentence]}
    assert not TRUE[sentence] or accepted & set(TRUE[sentence])


def test_outcomes_are_counted_and_the_rules_do_the_rest() -> None:
    text = "Stable cardiomegaly. Unchanged effusion. No new nodule. Clear lungs. Stable hernia."
    given = {
        "Stable cardiomegaly.": "Cardiomegaly.",
        "Unchanged effusion.": "unchanged effusion",
        "No new nodule.": "No nodule.",
    }
    edited = remove_priors(text, given)
    assert edited.text == "Cardiomegaly. Effusion. Clear lungs. Hernia."
    assert (edited.accepted, edited.unchanged, edited.rejected) == (1, 1, 1)
    assert (edited.mentioned, edited.edited, edited.dropped) == (4, 3, 1)


def test_long_sentences_are_not_compared() -> None:
    sentence = "Stable cardiomegaly " + "and effusion " * 50_000
    assert check_proposal(sentence, sentence[7:]) == (None, "rejected")
