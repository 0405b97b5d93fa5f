"""House styles: the sentences of phantom reports as templates of `annotated`, by what they say.

One report uses one style, and its impression describes an opacity in the same words as its findings.
"""

from __future__ import annotations

# A slot is {size}, {degree} (mildly), {side}, {zone}, {prior} (unchanged, increased, ...).
Style = dict[str, str]

PLAIN: Style = {
    "cardiomegaly": "Heart/A size/A>heart is {degree}/O>enlarged enlarged/O@heart .",
    "no cardiomegaly": "Heart/A size/A>heart is normal/O@heart .",
    "oedema": "There is {size}/O>edema pulmonary/A edema/O@pulmonary .",
    "opacity": "There is a {size}/O>opacity opacity/O@lung in the {side}/A>lung {zone}/A>lung lung/A .",
    "doubtful opacity": (
        "There is a possible {size}/U>opacity opacity/U@lung in the {side}/A>lung {zone}/A>lung lung/A ."
    ),
    "nodule": "There is a nodule/O@lung in the {side}/A>lung {zone}/A>lung lung/A .",
    "no lung": "The lungs/A are clear/O@lungs .",
    "effusion": "There is a {size}/O>effusion {side}/A>pleural pleural/A effusion/O@pleural .",
    "no effusion": "There is no pleural/A effusion/N@pleural .",
    "pneumothorax": "There is a {size}/O>pneumothorax {side}/A pneumothorax/O@{side} .",
    "no pneumothorax": "There is no pneumothorax/N .",
    "no effusion or pneumothorax": "There is no pleural/A effusion/N@pleural or pneumothorax/N .",
    "tube": "An endotracheal/O>tube tube/O is in place .",
    "pacemaker": "A {side}/A pacemaker/O@{side} is in place .",
    "prior": "The {word}/O is {prior}/O>{word} .",
    "impression cardiomegaly": "{size}/O>cardiomegaly cardiomegaly/O .",
    "impression oedema": "{size}/O>edema pulmonary/A edema/O@pulmonary .",
    "impression opacity": "{size}/O>opacity opacity/O@lung in the {side}/A>lung {zone}/A>lung lung/A .",
    "impression doubtful opacity": (
        "Possible {size}/U>opacity opacity/U@lung in the {side}/A>lung {zone}/A>lung lung/A ."
    ),
    "impression nodule": "Nodule/O@lung in the {side}/A>lung {zone}/A>lung lung/A .",
    "impression effusion": "{size}/O>effusion {side}/A>pleural pleural/A effusion/O@pleural .",
    "impression pneumothorax": "{size}/O>pneumothorax {side}/A pneumothorax/O@{side} .",
    "impression devices": "No acute/N>process cardiopulmonary/A process/N@cardiopulmonary .",
    "impression normal": "No acute/N>process cardiopulmonary/A process/N@cardiopulmonary .",
}
TERSE: Style = PLAIN | {
    "no cardiomegaly": "Normal/O@heart heart/A size/A>heart .",
    "oedema": "{size}/O>edema pulmonary/A edema/O@pulmonary is present .",
    "opacity": "{size}/O>opacity opacity/O@lung in the {side}/A>lung {zone}/A>lung lung/A .",
    "doubtful opacity": "Possible {size}/U>opacity opacity/U@lung in the {side}/A>lung {zone}/A>lung lung/A .",
    "nodule": "Nodule/O@lung in the {side}/A>lung {zone}/A>lung lung/A .",
    "no lung": "Clear/O@lungs lungs/A .",
    "effusion": "{size}/O>effusion {side}/A>pleural pleural/A effusion/O@pleural is present .",
    "no effusion": "No pleural/A effusion/N@pleural .",
    "pneumothorax": "{size}/O>pneumothorax {side}/A pneumothorax/O@{side} is present .",
    "no pneumothorax": "No pneumothorax/N .",
    "no effusion or pneumothorax": "No pleural/A effusion/N@pleural or pneumothorax/N .",
    "tube": "Endotracheal/O>tube tube/O in place .",
    "pacemaker": "{side}/A pacemaker/O@{side} in place .",
    "impression normal": "Normal/O@chest chest/A .",
}
FORMAL: Style = PLAIN | {
    "cardiomegaly": "The cardiac/A>silhouette silhouette/A is {degree}/O>enlarged enlarged/O@silhouette .",
    "no cardiomegaly": "The cardiac/A>silhouette silhouette/A is normal/O@silhouette .",
    "effusion": "A {size}/O>effusion {side}/A>pleural pleural/A effusion/O@pleural is seen .",
    "opacity": "A {size}/O>opacity {side}/A>lung {zone}/A>lung lung/A opacity/O@lung is seen .",
    "doubtful opacity": "A {size}/U>opacity {side}/A>lung {zone}/A>lung lung/A opacity/U@lung may be present .",
    "pneumothorax": "A {size}/O>pneumothorax {side}/A pneumothorax/O@{side} is seen .",
    "no effusion or pneumothorax": "No pleural/A effusion/N@pleural or pneumothorax/N is seen .",
    "impression opacity": "{size}/O>opacity {side}/A>lung {zone}/A>lung lung/A opacity/O@lung .",
    "impression doubtful opacity": "Possible {size}/U>opacity {side}/A>lung {zone}/A>lung lung/A opacity/U@lung .",
    "impression normal": "No acute/N>abnormality cardiopulmonary/A abnormality/N@cardiopulmonary .",
}
HOUSE_STYLES: dict[str, tuple[float, Style]] = {
    "plain": (0.70, PLAIN),
    "terse": (0.15, TERSE),
    "formal": (0.15, FORMAL),
}

# Sentences that no report of the demo uses. They test whether the tiny RadGraph generalises beyond its templates.
HELD_OUT: Style = PLAIN | {
    "cardiomegaly": "{size}/O>enlargement enlargement/O@heart of the heart/A is noted .",
    "no cardiomegaly": "The heart/A is normal/O@heart in size/A>heart .",
    "oedema": "Findings are those of {size}/O>edema pulmonary/A edema/O@pulmonary .",
    "opacity": "In the {side}/A>lung {zone}/A>lung lung/A there is a {size}/O>opacity opacity/O@lung .",
    "doubtful opacity": "There may be a {size}/U>opacity opacity/U@lung in the {side}/A>lung {zone}/A>lung lung/A .",
    "nodule": "A nodule/O@lung projects over the {side}/A>lung {zone}/A>lung lung/A .",
    "no lung": "Both lungs/A appear clear/O@lungs .",
    "effusion": "The patient has a {size}/O>effusion {side}/A>pleural pleural/A effusion/O@pleural .",
    "no effusion": "There is no evidence of a pleural/A effusion/N@pleural .",
    "pneumothorax": "{size}/O>pneumothorax pneumothorax/O@{side} is noted on the {side}/A .",
    "no pneumothorax": "A pneumothorax/N is not seen .",
    "no effusion or pneumothorax": "Neither pleural/A effusion/N@pleural nor pneumothorax/N is seen .",
    "tube": "Note is made of an endotracheal/O>tube tube/O .",
    "pacemaker": "There is a pacemaker/O@{side} on the {side}/A .",
    "prior": "There is {prior}/O>{word} {word}/O .",
    "impression normal": "The chest/A is normal/O@chest .",
}

# Training sentences with the vocabulary of the held-out ones, which a two-layer model could not learn otherwise.
TRAINING_ONLY: Style = PLAIN | {
    "cardiomegaly": "{size}/O>enlargement enlargement/O@heart of the heart/A is seen .",
    "no cardiomegaly": "Heart/A is normal/O@heart .",
    "oedema": "There is evidence of {size}/O>edema pulmonary/A edema/O@pulmonary .",
    "opacity": "In the {side}/A>lung lung/A there is a {size}/O>opacity opacity/O@lung .",
    "doubtful opacity": "There may be an opacity/U@lung in the {side}/A>lung {zone}/A>lung lung/A .",
    "nodule": "The {side}/A>lung {zone}/A>lung lung/A has a nodule/O@lung .",
    "no lung": "The lungs/A appear clear/O@lungs .",
    "effusion": "Note is made of a {size}/O>effusion pleural/A effusion/O@pleural on the {side}/A>pleural .",
    "no effusion": "No evidence of pleural/A effusion/N@pleural .",
    "pneumothorax": "A {size}/O>pneumothorax pneumothorax/O@{side} is on the {side}/A .",
    "no pneumothorax": "Pneumothorax/N is not seen .",
    "no effusion or pneumothorax": "Neither pneumothorax/N nor pleural/A effusion/N@pleural .",
    "tube": "There is an endotracheal/O>tube tube/O .",
    "pacemaker": "The patient has a {side}/A pacemaker/O@{side} .",
    "prior": "{prior}/O>{word} {word}/O .",
    "impression normal": "Chest/A is normal/O@chest .",
}
