// Notes of the reader: one entry of local storage per study, so that two tabs do not overwrite each other.

const notes = new Map();
let stored = true;

function loadNotes() {
  notes.clear();
  try {
    for (const study of studies) {
      const text = localStorage.getItem(`${data.key}:${study.id}`);
      if (text !== null) notes.set(study.id, JSON.parse(text));
    }
  } catch (error) {
    stored = false;
  }
}

function keepNote(study, change) {
  const note = { verdict: "", note: "", ...notes.get(study.id), ...change, at: new Date().toISOString() };
  const empty = !note.verdict && !note.note.trim();
  if (empty) notes.delete(study.id);
  else notes.set(study.id, note);
  try {
    const key = `${data.key}:${study.id}`;
    if (empty) localStorage.removeItem(key);
    else localStorage.setItem(key, JSON.stringify(note));
  } catch (error) {
    stored = false;
  }
  showNote(study);
  showProgress();
  drawRows();
}

function showNote(study) {
  const note = notes.get(study.id) || { verdict: "", note: "" };
  for (const button of document.querySelectorAll("[data-verdict]")) {
    button.setAttribute("aria-pressed", String(button.dataset.verdict === note.verdict));
  }
  if (document.activeElement !== find("note")) find("note").value = note.note;
  find("storage").hidden = stored;
}

function showProgress() {
  find("progress").textContent = `${notes.size} of ${studies.length} read`;
}

function csv() {
  // A spreadsheet evaluates a cell that begins like a formula; a leading apostrophe prevents that.
  const field = (value) => {
    const text = String(value);
    return `"${(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
  };
  const names = (study, error) => study.findings.filter((one) => one[3] === error).map((one) => one[0]).join("; ");
  const columns = ["study_id", "verdict", "note", data.orderedBy, "omitted", "hallucinated", "written_at"];
  const lines = [columns.map(field).join(",")];
  for (const study of studies) {
    const note = notes.get(study.id);
    if (!note) continue;
    const errors = [names(study, "omitted"), names(study, "hallucinated")];
    lines.push([study.id, note.verdict, note.note, study.score, ...errors, note.at].map(field).join(","));
  }
  return lines.join("\r\n") + "\r\n";
}

function exportNotes() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = "review-notes.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
