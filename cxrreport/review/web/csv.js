// The CSV file of the verdicts: one row per study and judged report. `agreement` reads it, and so does Import.

const COLUMNS = [
  "study_id", "report", "reader", "verdict", "preference", ...SEVERITIES.map((name) => `${name}_errors`), "errors", "note",
  "omitted", "hallucinated", "changed_after_marks", "written_at",
];

// A spreadsheet evaluates a cell that begins like a formula; a leading apostrophe prevents that.
const safe = (text) => (/^'*[=+\-@\t\r]/.test(text) ? `'${text}` : text);
const unsafe = (text) => (/^'+[=+\-@\t\r]/.test(text) ? text.slice(1) : text);

function csv() {
  const line = (values) => values.map((value) => `"${safe(String(value)).replaceAll('"', '""')}"`).join(",");
  const score = data.orderedBy ? [data.orderedBy] : [];
  const lines = [line([...COLUMNS, ...score])];
  for (const study of studies) {
    const note = notes.get(study.id);
    if (!note) continue;
    const named = (error) => study.findings.filter((one) => one[3] === error).map((one) => one[0]).join("; ");
    for (const report of judged(study)) {
      const errors = Object.entries(note.errors).filter(([name]) => name.startsWith(`${report.key}|`));
      const counts = SEVERITIES.map((severity) => errors.filter((one) => one[1] === severity).length);
      const listed = errors.map(([name, severity]) => `${name.slice(report.key.length + 1)}: ${severity}`).join("; ");
      lines.push(line([
        study.id, report.key, reader, note.verdicts[report.key] || "", note.preference, ...counts, listed, note.note,
        named("omitted"), named("hallucinated"), note.changed ? "yes" : "no", note.at,
        ...score.map(() => number(study.score)),
      ]));
    }
  }
  return `${lines.join("\r\n")}\r\n`;
}

function exportNotes() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = reader ? `verdicts-${reader.replace(/[^\p{L}\p{N}-]+/gu, "-")}.csv` : "verdicts.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function readCsv(text) {
  // RFC 4180, with either line ending.
  const rows = [[""]];
  let quoted = false;
  const source = text.replace(/^\ufeff/, "");
  for (let at = 0; at < source.length; at += 1) {
    const character = source[at];
    const row = rows[rows.length - 1];
    if (quoted) {
      if (character !== '"') row[row.length - 1] += character;
      else if (source[at + 1] === '"') row[row.length - 1] += source[at++];
      else quoted = false;
    } else if (character === '"') quoted = true;
    else if (character === ",") row.push("");
    else if (character === "\n") rows.push([""]);
    else if (character !== "\r") row[row.length - 1] += character;
  }
  const [names, ...values] = rows.filter((row) => row.length > 1 || row[0]);
  return values.map((row) => Object.fromEntries((names || []).map((name, index) => [name, unsafe(row[index] ?? "")])));
}

function noteFromRows(rows) {
  const note = normal({ preference: rows[0].preference, note: rows[0].note, changed: rows[0].changed_after_marks === "yes", at: rows[0].written_at });
  for (const row of rows) {
    if (row.verdict in VERDICTS) note.verdicts[row.report] = row.verdict;
    for (const error of (row.errors || "").split("; ").filter(Boolean)) {
      const cut = error.lastIndexOf(": ");
      const severity = error.slice(cut + 2);
      if (SEVERITIES.includes(severity)) note.errors[`${row.report}|${error.slice(0, cut)}`] = severity;
    }
  }
  return note;
}

function importNotes(text) {
  // A newer note of the same reader and study is kept.
  const byStudy = new Map(studies.map((study) => [study.id, study]));
  const groups = new Map();
  let unknown = 0;
  for (const row of readCsv(text)) {
    if (!byStudy.has(row.study_id) || !judged(byStudy.get(row.study_id)).some((one) => one.key === row.report)) {
      unknown += 1;
      continue;
    }
    const key = JSON.stringify([row.reader, row.study_id]);
    groups.set(key, [...(groups.get(key) || []), row]);
  }
  let kept = 0;
  for (const [key, rows] of groups) {
    const [of, id] = JSON.parse(key);
    const note = noteFromRows(rows);
    inStorage(() => {
      const place = storageKey(byStudy.get(id), of);
      const before = JSON.parse(localStorage.getItem(place) || "{}");
      if ((before.at || "") > note.at) return;
      localStorage.setItem(place, JSON.stringify(note));
      kept += 1;
    });
  }
  const readers = [...new Set([...groups.keys()].map((key) => JSON.parse(key)[0]))];
  if (readers.length === 1) setReader(readers[0]);
  else setReader(reader);
  showProgress(`${kept} studies imported${readers.length > 1 ? ` of ${readers.length} readers` : ""}${unknown ? `, ${unknown} rows of other pages left out` : ""}`);
}
