"use strict";
// The scripts are joined in the order of page.py. Report text is inserted as text nodes and attributes, never as HTML.

const find = (id) => document.getElementById(id);
const data = JSON.parse(find("data").textContent);
const studies = data.studies;
const ROW = 44;

for (const study of studies) {
  const words = study.reports.flatMap((report) => report.sections.flatMap(([, sentences]) => sentences.flat()));
  study.search = [study.id, ...words.map((piece) => piece[0])].join(" ").toLowerCase();
}

// Counts have no decimals; all other numbers of the page have three.
const names = new Set(studies.flatMap((study) => Object.keys(study.scores)));
const counts = new Set([...names].filter((name) => {
  const values = studies.map((study) => study.scores[name]).filter((value) => typeof value === "number");
  return values.every(Number.isInteger) && values.some((value) => value > 1);
}));
const number = (value, name = "") => (typeof value === "number" ? value.toFixed(counts.has(name) ? 0 : 3) : "–");

function element(kind, text = "", name = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}
