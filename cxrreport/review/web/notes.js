// What readers record: one entry of local storage per reader and study, so that two tabs do not overwrite each other.
// A note is { verdicts: {report: verdict}, preference, errors: {"report|target": severity}, note, changed, at }.

const VERDICTS = { acceptable: "Acceptable", minor: "Minor errors", significant: "Significant errors" };
const SEVERITIES = ["minor", "actionable", "urgent"];
const notes = new Map();
let reader = "";
let stored = true;

const storageKey = (study, of = reader) => `${data.key}:${of ? `${of}:` : ""}${study.id}`;
const judged = (study) => study.reports.filter((report) => report.judged);

function inStorage(work) {
  try {
    return work();
  } catch (error) {
    stored = false;
    return null;
  }
}

function normal(note) {
  // Pages of version 0.1 stored one verdict as text.
  const verdicts = typeof note.verdict === "string" && note.verdict ? { generated: note.verdict } : {};
  return { verdicts, preference: "", errors: {}, note: "", changed: false, at: "", ...note };
}

function loadNotes() {
  notes.clear();
  inStorage(() => {
    for (const study of studies) {
      const text = localStorage.getItem(storageKey(study));
      if (text !== null) notes.set(study.id, normal(JSON.parse(text)));
    }
  });
}

function setReader(name) {
  reader = name.trim();
  if (find("reader").value !== reader) find("reader").value = reader;
  inStorage(() => localStorage.setItem(`${data.key}.reader`, reader));
  loadNotes();
  redrawNotes();
}

const noteOf = (study) => notes.get(study.id) || normal({});

function finished(study) {
  // Whether every report has its verdict, which shows the marks of a blind page.
  const { verdicts } = noteOf(study);
  return judged(study).every((report) => verdicts[report.key]);
}

function keepNote(study, change) {
  const before = noteOf(study);
  const note = { ...before, ...change, at: new Date().toISOString() };
  note.changed = before.changed || (data.blind && finished(study));
  const empty = !Object.keys(note.verdicts).length && !Object.keys(note.errors).length && !note.preference && !note.note.trim();
  if (empty) notes.delete(study.id);
  else notes.set(study.id, note);
  inStorage(() => {
    if (empty) localStorage.removeItem(storageKey(study));
    else localStorage.setItem(storageKey(study), JSON.stringify(note));
  });
  redrawNotes();
}

function redrawNotes() {
  if (shown) {
    showNote(shown);
    showErrors(shown);
  }
  showProgress();
  drawRows();
}

function setVerdict(study, report, verdict) {
  const verdicts = { ...noteOf(study).verdicts };
  if (verdicts[report] === verdict) delete verdicts[report];
  else verdicts[report] = verdict;
  keepNote(study, { verdicts });
  advance(study);
}

function setPreference(study, preference) {
  keepNote(study, { preference: noteOf(study).preference === preference ? "" : preference });
  advance(study);
}

function advance(study) {
  const complete = finished(study) && (!data.blind || noteOf(study).preference);
  if (find("advance").checked && complete) go(place + 1);
}

function choiceRow(label, choices, pressed, choose) {
  const row = element("div", "", "choices");
  row.setAttribute("role", "group");
  row.setAttribute("aria-label", label);
  for (const [value, text, key] of choices) {
    const button = element("button");
    button.type = "button";
    button.dataset.choice = value;
    button.setAttribute("aria-pressed", String(value === pressed));
    button.append(element("kbd", key), ` ${text}`);
    button.addEventListener("click", () => choose(value));
    row.append(button);
  }
  return row;
}

function showNote(study) {
  // With two judged reports, each has its verdict below its text.
  const note = noteOf(study);
  const reports = judged(study);
  const rows = reports.map((report, index) => choiceRow(
    `Verdict on ${report.title}`,
    Object.entries(VERDICTS).map(([value, text], column) => [value, text, String(3 * index + column + 1)]),
    note.verdicts[report.key],
    (verdict) => setVerdict(study, report.key, verdict),
  ));
  const places = [...document.querySelectorAll("#pair .verdict-of")];
  const sides = [["A", "A is better", "7"], ["same", "Equal", "8"], ["B", "B is better", "9"]];
  if (reports.length === 1) find("choices").replaceChildren(rows[0]);
  else {
    places.forEach((slot, index) => slot.replaceChildren(rows[index]));
    find("choices").replaceChildren(choiceRow("Preference", sides, note.preference, (side) => setPreference(study, side)));
  }
  if (document.activeElement !== find("note")) find("note").value = note.note;
  find("storage").hidden = stored;
}

function showProgress(message = "") {
  find("progress").textContent = message || `${notes.size} of ${studies.length} read`;
}
