"""How phantom reports compare a study with the prior one, by house style: templates of `annotated`.

`changed` replaces the period of the sentence of a finding, and `changed <finding>` its whole sentence. Without the
words about the prior study, what is left is the sentence of a study alone. A resolved finding has its own sentence.
Slots are those of `wordings`, {prior} (new, increased, ...) and {word}, the observation of the sentence.

Here too is the effusion that only a lateral view shows.
"""

from __future__ import annotations

from cxrreport.demo.phantoms.wordings import Style

_PLAIN: Style = {
    "posterior effusion": "There is a {size}/O>effusion posterior/A>pleural pleural/A effusion/O@pleural .",
    "impression posterior effusion": "{size}/O>effusion posterior/A>pleural pleural/A effusion/O@pleural .",
    "changed": ", {prior}/O>{word} .",
    "resolved": "The {word}/O has resolved/O>{word} .",
    "resolved opacity": "The {side}/A>lung {zone}/A>lung lung/A opacity/O@lung has resolved/O>opacity .",
    "resolved effusion": "The {side}/A>pleural pleural/A effusion/O@pleural has resolved/O>effusion .",
    "resolved posterior effusion": "The posterior/A>pleural pleural/A effusion/O@pleural has resolved/O>effusion .",
    "resolved pneumothorax": "The {side}/A pneumothorax/O@{side} has resolved/O>pneumothorax .",
}
_TERSE: Style = _PLAIN | {
    "posterior effusion": "{size}/O>effusion posterior/A>pleural pleural/A effusion/O@pleural is present .",
    "changed oedema": "{prior}/O>edema {size}/O>edema pulmonary/A edema/O@pulmonary is present .",
    "changed effusion": (
        "{prior}/O>effusion {size}/O>effusion {side}/A>pleural pleural/A effusion/O@pleural is present ."
    ),
    "changed pneumothorax": "{prior}/O>pneumothorax {size}/O>pneumothorax {side}/A pneumothorax/O@{side} is present .",
    "resolved opacity": "Resolved/O>opacity {side}/A>lung {zone}/A>lung lung/A opacity/O@lung .",
    "resolved effusion": "Resolved/O>effusion {side}/A>pleural pleural/A effusion/O@pleural .",
}
_FORMAL: Style = _PLAIN | {
    "posterior effusion": "A {size}/O>effusion posterior/A>pleural pleural/A effusion/O@pleural is seen .",
    "changed": ", {prior}/O>{word} since the prior study .",
}
# Sentences of no report: they test what the tiny RadGraph and the readers of change have learned.
_HELD_OUT: Style = _PLAIN | {
    "posterior effusion": "The patient has a {size}/O>effusion posterior/A>pleural pleural/A effusion/O@pleural .",
    "changed": "that is {prior}/O>{word} .",
    "changed opacity": "{prior}/O>opacity {side}/A>lung {zone}/A>lung lung/A opacity/O@lung .",
    "changed effusion": "The {size}/O>effusion {side}/A>pleural pleural/A effusion/O@pleural is {prior}/O>effusion .",
    "changed pneumothorax": "There is {prior}/O>pneumothorax {side}/A pneumothorax/O@{side} .",
    "resolved": "Resolved/O>{word} {word}/O .",
    "resolved opacity": "The opacity/O@lung in the {side}/A>lung {zone}/A>lung lung/A has resolved/O>opacity .",
    "resolved effusion": "{side}/A>pleural pleural/A effusion/O@pleural is resolved/O>effusion .",
    "resolved pneumothorax": "{side}/A pneumothorax/O@{side} has resolved/O>pneumothorax .",
}
# With the words of the held-out sentences, for training the tiny RadGraph.
_TRAINING_ONLY: Style = _PLAIN | {
    "posterior effusion": "Note is made of a {size}/O>effusion posterior/A>pleural pleural/A effusion/O@pleural .",
    "changed": ", which is {prior}/O>{word} .",
    "changed opacity": "The {side}/A {zone}/A>{side} opacity/O@{side} is {prior}/O>opacity .",
    "changed effusion": "The {side}/A effusion/O@{side} is {prior}/O>effusion .",
    "changed pneumothorax": "{prior}/O>pneumothorax {side}/A pneumothorax/O@{side} .",
    "resolved": "{word}/O has resolved/O>{word} .",
    "resolved opacity": "Resolved/O>opacity {side}/A {zone}/A>{side} opacity/O@{side} .",
    "resolved effusion": "The {side}/A effusion/O@{side} is resolved/O>effusion .",
}
COMPARISONS = {
    "plain": _PLAIN,
    "terse": _TERSE,
    "formal": _FORMAL,
    "held-out": _HELD_OUT,
    "training": _TRAINING_ONLY,
}
