"""Reports with planted identifiers, for `benchmarks/deidentify.py`.

Carriers, names and places are divided into two halves: the rules were written with the outcomes of `tuning` alone. The
text that replaces the `{...}` of a carrier is the identifier.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Half = Literal["tuning", "held-out"]
KINDS = (
    "patient", "doctor", "initials", "date", "time", "phone", "record", "address", "hospital", "email", "age",
    "national-id",
)  # fmt: skip

_FIRST = {
    "tuning": "James Maria Wei Fatima Olga Carlos Priya Kwame Ingrid Liam Noor Hans Beatrice Dmitri Aaliyah Tomasz "
    "Grace Rafael Mei Siobhan Ahmed Joyce Bogdan Lakshmi Trevor Yolanda Niels Chiara Omar Harriet",
    "held-out": "Robert Ana Xiu Khadija Svetlana Miguel Deepa Chinedu Astrid Declan Layla Jurgen Eleanor Sergei Latoya "
    "Piotr Faith Thiago Ling Niamh Yusuf Doris Mihai Kavitha Graham Rosalinda Soren Giulia Tariq Winifred",
}
_LAST = {
    "tuning": "Smith Gonzalez Zhang Hussain Ivanova Ramirez Patel Mensah Larsson O'Brien Rahman Schneider Whitfield "
    "Petrov Washington Kowalski Okafor Silva Chen Gallagher El-Sayed Thompson Ionescu Iyer Blackwood Castillo "
    "Jensen Ricci Haddad Price Fisher Young Brown Stone",
    "held-out": "Johnson Hernandez Liu Siddiqui Sokolova Morales Sharma Adeyemi Lindqvist McCarthy Khalil Hoffmann "
    "Pemberton Volkov Jefferson Nowak Eze Carvalho Wong Doyle Al-Masri Robinson Popescu Krishnan Ashworth Delgado "
    "Nielsen Moretti Nasser Bell Hunter Long Green Rose",
}
_STREETS = {
    "tuning": ("Maple Street", "Oak Avenue", "Harbor Rd.", "King's Road", "Sunset Boulevard", "Mill Ln"),
    "held-out": ("Elm St.", "Washington Ave", "Chestnut Drive", "Station Road", "Lakeview Terrace", "Pine Court"),
}
_CITIES = {
    "tuning": ("Springfield, IL 62704", "Boston, MA 02115", "Leeds LS2 9JT", "Austin, TX"),
    "held-out": ("Dayton, OH 45402", "Portland, Oregon 97205", "Bristol BS1 5TR", "Albany, NY"),
}
_HOSPITALS = {
    "tuning": (
        "St. Mary's Hospital", "Mercy General Hospital", "Lakeside Medical Center", "Riverside Clinic",
        "University Hospital of Northfield", "Mount Carmel Health", "Oak Ridge Nursing Home",
        "Royal Infirmary of Leith",
    ),
    "held-out": (
        "Saint Luke's Medical Center", "Good Samaritan Hospital", "Northwood Community Hospital", "Fairview Clinic",
        "Children's Hospital of Westbrook", "Beth Shalom Medical Centre", "Pine Hill Rehabilitation Center",
        "Queen Anne Infirmary",
    ),
}  # fmt: skip
_CARRIERS: dict[Half, dict[str, tuple[str, ...]]] = {
    "tuning": {
        "patient": (
            "Patient name: {x}.", "PATIENT: {X}", "Mr. {last} was transferred from the floor.",
            "Indication: {x} is a smoker with cough.", "Chest radiograph of {x}, compared with the earlier one.",
            "Mrs. {last} could not hold her breath.", "Name: {comma}  Sex: F", "{x} reports fever for three days.",
            "History provided by the daughter of {x}.", "RE: {COMMA}",
        ),
        "doctor": (
            "Findings were discussed with Dr. {x} by telephone.", "Dictated by: {x}, M.D.",
            "Electronically signed by {x} MD", "Dr. {last} was paged with these results.",
            "The results were communicated to {x}, RN.", "ATTENDING: DR. {X}",
            "Reviewed with Drs. {last} and colleague.",
            "Radiologist: {x}", "These findings were conveyed to nurse {last}.", "cc: {x}, MD",
        ),
        "initials": (
            "Discussed with Dr. {ini}.", "Mr. {ini} is intubated.", "Dictated by: {ini}", "Dr {ini} informed.",
            "Signed: {ini}, MD",
        ),
        "date": (
            "Comparison: {x}.", "COMPARISON: Chest radiograph of {x}.", "Since the study of {x} there is no change.",
            "Compared with {x}, the effusion has decreased.", "The patient had surgery on {x}.", "DATE OF EXAM: {x}",
            "PICC line placed {x}.", "Date of birth: {x}",
        ),
        "time": (
            "Dr. was informed at {x}.", "Exam performed at {x} hours.", "AP chest {x}:",
            "Communicated by phone at {x}.",
            "The study was read at {x} on the day of the exam.",
        ),
        "phone": (
            "Please call {x} with questions.", "Paged at {x}.", "Telephone: {x}", "Fax {x}",
            "Contact the resident at {x}.",
        ),
        "record": (
            "MRN: {x}", "Accession number {x}.", "Acc# {x}", "Medical record number {x}", "Exam ID {x}",
        ),
        "address": ("Address: {x}", "The patient lives at {x}.", "Report sent to {x}."),
        "hospital": (
            "Transferred from {x}.", "Outside radiograph from {x} was reviewed.", "{x}, Department of Radiology",
            "Admitted to {x} with pneumonia.", "Seen at {x} last week.",
        ),
        "email": ("Questions: {x}", "Report sent to {x}.", "E-mail {x} for the images."),
        "age": (
            "{x}-year-old woman with cough.", "{x} year old man with dyspnea.", "Patient is {x} years old.",
            "{x} yo F, fall.",
        ),
        "national-id": ("SSN: {ssn}", "Social security number {ssn}.", "NHS number {nhs}", "NHS No: {nhs}"),
    },
    "held-out": {
        "patient": (
            "Pt: {x}.", "PATIENT NAME: {COMMA}", "Ms. {last} was unable to stand.",
            "Reason for exam: {x} with chest pain after a fall.", "Two views of the chest of {x} were obtained.",
            "The patient, {x}, was imaged in the supine position.", "Patient's name is {comma}.",
            "{x} complains of shortness of breath.", "The wife of Mr. {x} was present.", "Re: {x}",
        ),
        "doctor": (
            "Results telephoned to Dr. {x} at the time of review.", "Interpreted by {x}, MD.",
            "Report electronically signed by: {x}, M.D., Ph.D.", "Dr {last} acknowledged receipt.",
            "Discussed in person with {x}, PA-C.", "REFERRING PHYSICIAN: {X}",
            "I, Dr. {x}, have reviewed the images.",
            "Resident: {x}", "Notified: Nurse {last}.", "Ordering provider: {comma}",
        ),
        "initials": (
            "Findings conveyed to Dr. {ini}.", "Mrs. {ini} was extubated.", "Transcribed by: {ini}",
            "Prof. {ini} agreed.",
            "Read by {ini}, M.D.",
        ),
        "date": (
            "Comparison is made to {x}.", "COMPARISON: {x}, and older studies.", "Chest x-ray from {x}.",
            "In comparison with the study of {x}, the heart is larger.", "Status post CABG on {x}.", "Exam date: {x}",
            "Chest tube removed {x}.", "DOB {x}",
        ),
        "time": (
            "These results were called in at {x}.", "Radiograph taken at {x}.", "Portable chest, {x}.",
            "Telephone notification at {x} to the team.", "Time of exam: {x}",
        ),
        "phone": (
            "For questions contact radiology at {x}.", "Pager {x}.", "Tel. {x}", "Callback: {x}",
            "Reached the ward on {x}.",
        ),
        "record": (
            "Medical Record #: {x}", "ACCESSION: {x}", "MR# {x}", "Patient ID: {x}", "Order no. {x}",
        ),
        "address": ("Home address: {x}", "Resides at {x}.", "Mail the images to {x}."),
        "hospital": (
            "Film from {x} dated last year.", "The patient was brought from {x} by ambulance.",
            "{x} Radiology Report",
            "Follow-up at {x} is recommended.", "Discharged to {x}.",
        ),
        "email": ("Contact: {x}.", "Copy to {x}", "Please write to {x} with questions."),
        "age": (
            "This is a {x}-year-old male with fever.", "{x} y/o female, syncope.", "Age: {x}", "{x}yo man with CHF.",
        ),
        "national-id": ("SS# {ssn}", "Soc. Sec. No. {ssn}", "NHS: {nhs}", "NHS no. {nhs}"),
    },
}  # fmt: skip
_PLAIN = (
    "The lungs are clear.", "No pleural effusion or pneumothorax.", "Heart size is normal.",
    "There is a 5 mm nodule in the right upper lobe.", "Kerley B lines are seen.",
    "A Swan-Ganz catheter is in place.",
    "The right Port-A-Cath ends in the lower SVC.", "Degenerative changes at T8-T9.", "Mild cardiomegaly.",
    "The Hickman catheter is unchanged.", "Old fracture of the left 6th rib.", "IMPRESSION: No acute disease.",
)  # fmt: skip
_DATE_FORMS = {
    "tuning": (
        "%m/%d/%Y", "%d.%m.%Y", "%B %d, %Y", "%d %b %Y", "%Y-%m-%d", "%m-%d-%y", "%m/%d/%y", "%b %d, %Y",
        "%A, %B %d, %Y", "%d-%b-%Y",
    ),
    "held-out": (
        "%m/%d/%y", "%d/%m/%Y", "%B %dth, %Y", "%d %B %Y", "%Y/%m/%d", "%d-%b-%y", "%b. %d, %Y", "%B %Y", "%m/%d",
        "the %dth of %B %Y",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Planted:
    """A report with one identifier, and where it is."""

    text: str
    kind: str
    start: int
    end: int


def planted(half: Half, count: int) -> list[Planted]:
    """Reports with `count` identifiers, the kinds in turn."""
    random_ = random.Random(half)
    return [_planted(half, KINDS[index % len(KINDS)], random_) for index in range(count)]


def _planted(half: Half, kind: str, random_: random.Random) -> Planted:
    carrier = random_.choice(_CARRIERS[half][kind])
    slot = carrier[carrier.index("{") + 1 : carrier.index("}")]
    value = _value(half, kind, slot, random_)
    before, after = random_.sample(_PLAIN, random_.randint(1, 3)), random_.sample(_PLAIN, random_.randint(1, 3))
    gap = random_.choice((" ", "\n"))
    head = gap.join(before) + gap + carrier[: carrier.index("{")]
    text = head + value + carrier[carrier.index("}") + 1 :] + gap + gap.join(after)
    return Planted(text, kind, len(head), len(head) + len(value))


def _value(half: Half, kind: str, slot: str, random_: random.Random) -> str:
    digits = lambda count: "".join(random_.choices("0123456789", k=count))  # noqa: E731
    first, last = random_.choice(_FIRST[half].split()), random_.choice(_LAST[half].split())
    whole = f"{first} {random_.choice(('', '', 'J. ', 'A. '))}{last}"
    if kind in ("patient", "doctor"):
        comma = f"{last}, {first}"
        return {"x": whole, "X": whole.upper(), "last": last, "comma": comma, "COMMA": comma.upper()}[slot]
    if kind == "initials":
        return random_.choice(("{0}.{1}.", "{0}. {1}.", "{0}{1}", "{0}.")).format(first[0], last[0])
    if kind == "date":
        import datetime

        day = datetime.date(2000, 1, 1) + datetime.timedelta(random_.randrange(9000))
        return day.strftime(random_.choice(_DATE_FORMS[half]))
    if kind == "time":
        hour, minute = random_.randrange(1, 13), f"{random_.randrange(60):02}"
        forms = {
            "tuning": (f"{hour}:{minute} p.m.", f"{hour + 11}:{minute}", f"{hour}:{minute} AM", f"{hour:02}{minute}"),
            "held-out": (
                f"{hour}:{minute}pm",
                f"{hour + 11}:{minute}:07",
                f"{hour}:{minute} a.m.",
                f"{hour:02}:{minute} hrs",
            ),
        }
        return random_.choice(forms[half])
    if kind == "phone":
        area, middle, rest = f"{random_.randrange(201, 990)}", f"{random_.randrange(200, 999)}", digits(4)
        forms = {
            "tuning": (f"({area}) {middle}-{rest}", f"{area}-{middle}-{rest}", f"x{rest}",
            f"+1 {area} {middle} {rest}",
                       f"{middle}-{rest}"),
            "held-out": (f"{area}.{middle}.{rest}", f"1-{area}-{middle}-{rest}", f"ext. {rest}",
            f"+44 20 7946 {rest}",
                         f"{area} {middle} {rest}"),
        }  # fmt: skip
        return random_.choice(forms[half])
    if kind == "record":
        forms = {
            "tuning": (
                digits(7),
                f"{digits(2)}-{digits(2)}-{digits(2)}",
                f"A{digits(8)}",
                f"CR-{digits(4)}-{digits(5)}",
            ),
            "held-out": (
                digits(8),
                f"{digits(3)}-{digits(3)}-{digits(3)}",
                f"RAD{digits(7)}",
                f"{digits(4)}{first[:2].upper()}{digits(4)}",
            ),
        }
        return random_.choice(forms[half])
    if kind == "address":
        return f"{random_.randrange(1, 4000)} {random_.choice(_STREETS[half])}, {random_.choice(_CITIES[half])}"
    if kind == "hospital":
        return random_.choice(_HOSPITALS[half])
    if kind == "email":
        name = last.lower().replace("'", "")
        return random_.choice((f"{first[0].lower()}{name}@hospital.org", f"{first.lower()}.{name}@med.example.edu"))
    if kind == "age":
        return str(random_.randrange(90, 107))
    return f"{random_.randrange(100, 665)}-{digits(2)}-{digits(4)}" if slot == "ssn" else _nhs(random_)


def _nhs(random_: random.Random) -> str:
    """An NHS number with its check digit."""
    while True:
        digits = [random_.randrange(10) for _ in range(9)]
        check = -sum(digit * weight for digit, weight in zip(digits, range(10, 1, -1), strict=True)) % 11
        if check < 10 and digits[0]:
            text = "".join(map(str, [*digits, check]))
            return f"{text[:3]} {text[3:6]} {text[6:]}"
