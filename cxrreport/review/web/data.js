"use strict";
// The scripts are joined in the order of page.py. Report text is inserted as text nodes and attributes, never as HTML.

const find = (id) => document.getElementById(id);
const data = JSON.parse(find("data").textContent);
const studies = data.studies;
const ROW = 44;

for (const study of studies) {
  const words = [...study.generated, ...study.reference].map((piece) => piece[0]);
  study.search = [study.id, ...words].join("").toLowerCase();
}
