"use strict";
// Text of reports reaches the page as text nodes and attributes only, never as HTML.

const find = (id) => document.getElementById(id);
const data = JSON.parse(find("data").textContent);
const studies = data.studies;
const ROW = 44;

for (const study of studies) {
  const words = [...study.generated, ...study.reference].map((piece) => piece[0]);
  study.search = [study.id, ...words].join("").toLowerCase();
}

// ---- the reader's notes, one entry of local storage per study, so that two tabs do not overwrite each other ----

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
  // A spreadsheet runs a cell that begins like a formula; an apostrophe in front keeps it text.
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

// ---- filters ----

let chosen = studies.map((_, index) => index);
let place = 0;

// What one report states of a finding: presence, sides, severity; empty where it says nothing.
const there = (said) => said[0] === "present" || said[0] === "uncertain";

function stateOf([, generated, reference, error, contradiction]) {
  if (error) return error;
  if (there(generated) && there(reference)) return generated.join() === reference.join() ? "agreed" : "differs";
  return contradiction ? "contradiction" : "";
}

function fillFindings() {
  const counts = new Map();
  for (const study of studies) {
    for (const finding of study.findings) if (stateOf(finding)) counts.set(finding[0], (counts.get(finding[0]) || 0) + 1);
  }
  for (const [name, count] of counts) find("finding").append(new Option(`${name} (${count})`, name));
}

function hasFinding(study, name, state) {
  return study.findings.some((finding) => (!name || finding[0] === name) && (
    state === "contradiction" ? finding[4] : state ? stateOf(finding) === state : there(finding[1]) || there(finding[2])));
}

const wrong = (study) => study.findings.filter((finding) => finding[3] || finding[4]).length;
const sure = (study) => study.scores.mean_logprob ?? Infinity;
const orders = {
  worst: (one, other) => one - other, // as they come
  findings: (one, other) => wrong(studies[other]) - wrong(studies[one]) || one - other,
  unsure: (one, other) => sure(studies[one]) - sure(studies[other]) || one - other,
  id: (one, other) => (studies[one].id < studies[other].id ? -1 : 1),
};

function applyFilters() {
  const current = studies[chosen[place]];
  const words = find("query").value.toLowerCase().split(/\s+/).filter(Boolean);
  const band = find("band").value && find("band").value.split(",").map(Number);
  const [name, state, read] = ["finding", "state", "read"].map((id) => find(id).value);
  chosen = [];
  studies.forEach((study, index) => {
    if (!words.every((word) => study.search.includes(word))) return;
    if (band && (study.score < band[0] || study.score > band[1])) return;
    if ((name || state) && !hasFinding(study, name, state)) return;
    if (read && notes.has(study.id) !== (read === "yes")) return;
    chosen.push(index);
  });
  chosen.sort(orders[find("order").value]);
  place = Math.max(0, chosen.findIndex((index) => studies[index] === current));
  find("rows").style.height = `${chosen.length * ROW}px`;
  show();
}

// ---- the list: only the rows in sight are in the document ----

function drawRows() {
  const list = find("list");
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
  const last = Math.min(chosen.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 4);
  const rows = [];
  for (let position = first; position < last; position += 1) {
    const study = studies[chosen[position]];
    const row = document.createElement("li");
    const button = document.createElement("button");
    const name = document.createElement("span");
    const value = document.createElement("span");
    const bar = document.createElement("span");
    const fill = document.createElement("i");
    row.style.top = `${position * ROW}px`;
    button.type = "button";
    button.setAttribute("aria-current", String(position === place));
    name.className = "name";
    name.textContent = (notes.has(study.id) ? "✓ " : "") + study.id;
    name.title = study.id;
    value.className = "value";
    value.textContent = study.score.toFixed(2);
    bar.className = "bar";
    fill.style.width = `${Math.round(100 * study.score)}%`;
    bar.append(fill);
    button.append(name, value, bar);
    button.addEventListener("click", () => go(position));
    row.append(button);
    rows.push(row);
  }
  find("rows").replaceChildren(...rows);
}

function scrollToPlace() {
  const list = find("list");
  const top = place * ROW;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
}

// ---- one study ----

function fillReport(element, pieces) {
  element.classList.toggle("blank", pieces.length === 0);
  element.replaceChildren(...(pieces.length ? pieces : [["(empty)"]]).map(([text, status, label]) => {
    if (!status) return document.createTextNode(text);
    const mark = document.createElement("span");
    mark.className = `mark ${status}`;
    mark.textContent = text;
    mark.title = `${status}: ${label}`;
    mark.setAttribute("role", "mark");
    mark.setAttribute("aria-description", status);
    return mark;
  }));
  element.scrollTop = 0;
}

const number = (value) => (typeof value === "number" ? value.toFixed(3) : "–");

function cell(kind, text, name = "") {
  const element = document.createElement(kind);
  element.textContent = text;
  if (name) element.className = name;
  return element;
}

const degrees = { mild: "small or mild", severe: "large or severe" };
const plainState = { omitted: "omitted", hallucinated: "hallucinated", agreed: "agrees", differs: "differs", contradiction: "" };

function fillTable(study) {
  const rows = study.findings.filter(stateOf);
  find("findings").hidden = rows.length === 0;
  find("finding-rows").replaceChildren(...rows.map((finding) => {
    const [name, generated, reference, , contradiction] = finding;
    const row = document.createElement("tr");
    row.className = stateOf(finding);
    const heading = cell("th", name);
    heading.scope = "row";
    const verdict = cell("td", plainState[row.className], "state");
    if (contradiction) verdict.append(" ", cell("b", "contradicts itself"));
    const said = ([presence, sides, degree]) =>
      [presence, sides.replace("+", " and "), degrees[degree] || degree].filter(Boolean).join(", ") || "–";
    const sides = [["Generated", generated], ["Reference", reference]].map(([side, one]) => {
      const element = cell("td", said(one));
      element.dataset.side = side;
      return element;
    });
    row.append(heading, ...sides, verdict);
    return row;
  }));
  const absent = ([name, ...sides]) => name !== "No Finding" && sides.slice(0, 2).every((one) => one[0] === "absent");
  const denied = study.findings.filter(absent).map((one) => one[0]);
  find("denied").textContent = denied.length ? `Denied in both: ${denied.join(", ")}.` : "";
}

function fillScores(study) {
  // One box for each metric, precision and recall small in it; all that is left in a list that is folded away.
  const heads = [...new Set(data.headlines)].filter((name) => name in study.scores);
  const parts = heads.flatMap((name) => ["_precision", "_recall"].map((part) => name + part));
  find("scores").replaceChildren(...heads.map((name) => {
    const box = document.createElement("div");
    box.className = name === data.orderedBy ? "first" : "";
    box.append(cell("dt", name.replaceAll("_", " ")), cell("dd", number(study.scores[name])));
    if (`${name}_precision` in study.scores) {
      const [precision, recall] = [study.scores[`${name}_precision`], study.scores[`${name}_recall`]];
      box.append(cell("dd", `precision ${number(precision)}, recall ${number(recall)}`, "parts"));
    }
    return box;
  }));
  const others = Object.keys(study.scores).filter((name) => !heads.includes(name) && !parts.includes(name));
  find("numbers").parentElement.hidden = others.length === 0;
  find("numbers").replaceChildren(...others.map((name) => {
    const line = document.createElement("div");
    line.append(cell("dt", name.replaceAll("_", " ")), cell("dd", number(study.scores[name])));
    return line;
  }));
}

let shown = null;

function show() {
  const some = chosen.length > 0;
  find("main").hidden = !some;
  find("empty").hidden = some;
  find("position").textContent = some ? `${place + 1} of ${chosen.length}` : "0 of 0";
  find("previous").disabled = !some || place === 0;
  find("next").disabled = !some || place === chosen.length - 1;
  scrollToPlace();
  drawRows();
  if (!some) return;
  const study = studies[chosen[place]];
  if (study === shown) return; // a filter that keeps the study keeps its zoom and window too
  shown = study;
  find("study-id").textContent = `Study ${study.id}`;
  find("where").textContent = `entities: ${study.missed} missed, ${study.hallucinated} hallucinated`;
  find("indication").hidden = !study.indication;
  const term = document.createElement("b");
  term.textContent = "Indication: ";
  find("indication").replaceChildren(term, study.indication);
  fillReport(find("generated"), study.generated);
  fillReport(find("reference"), study.reference);
  fillTable(study);
  fillScores(study);
  showNote(study);
  showImage(0);
  history.replaceState(null, "", `#${encodeURIComponent(study.id)}`);
}

function go(position) {
  if (position < 0 || position >= chosen.length || position === place) return;
  if (document.activeElement === find("note")) find("note").blur();
  place = position;
  show();
}

// ---- the image: zoom, pan and a linear window, PS3.3 C.11.2.1.2 in its plain form ----

let shownImage = 0;
let view = { zoom: 1, x: 0, y: 0 };
let inverted = false;

function showImage(number) {
  const count = shown.images;
  shownImage = count ? number % count : 0;
  find("other-image").hidden = count < 2;
  find("other-image").textContent = `Image ${shownImage + 1} of ${count}`;
  find("image").alt = count ? `Radiograph of study ${shown.id}` : "";
  resetImage();
  fetchImage();
}

function fetchImage() {
  // The images stand at the end of the file, and the browser may not have read this one yet.
  const source = shown.images ? find(`image-${studies.indexOf(shown)}-${shownImage}`) : null;
  const waiting = shown.images > 0 && !source && document.readyState === "loading";
  find("image").hidden = !source;
  find("no-image").hidden = Boolean(source);
  find("no-image").textContent = waiting ? "Reading the image…" : "This study has no image in the data folder.";
  if (source) find("image").src = source.textContent;
  clearTimeout(fetchImage.again);
  if (waiting) fetchImage.again = setTimeout(fetchImage, 50);
}

function resetImage() {
  view = { zoom: 1, x: 0, y: 0 };
  inverted = false;
  find("level").value = 128;
  find("width").value = 256;
  placeImage();
  windowImage();
}

function placeImage() {
  const stage = find("stage");
  const room = { x: ((view.zoom - 1) * stage.clientWidth) / 2, y: ((view.zoom - 1) * stage.clientHeight) / 2 };
  view.x = Math.max(-room.x, Math.min(room.x, view.x));
  view.y = Math.max(-room.y, Math.min(room.y, view.y));
  find("image").style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.zoom})`;
  find("zoom").textContent = `${Math.round(100 * view.zoom)}%`;
  stage.classList.toggle("zoomed", view.zoom > 1);
}

function windowImage() {
  const level = Number(find("level").value) / 255;
  const width = Number(find("width").value) / 255;
  const slope = (inverted ? -1 : 1) / width;
  const intercept = 0.5 - slope * level;
  for (const part of document.querySelectorAll("#window feComponentTransfer > *")) {
    part.setAttribute("slope", slope);
    part.setAttribute("intercept", intercept);
  }
  find("invert").setAttribute("aria-pressed", String(inverted));
}

function zoomBy(factor, x = 0, y = 0) {
  // (x, y), relative to the middle of the stage, stays where it is.
  const zoom = Math.max(1, Math.min(12, view.zoom * factor));
  const ratio = zoom / view.zoom;
  view = { zoom, x: x - (x - view.x) * ratio, y: y - (y - view.y) * ratio };
  placeImage();
}

function invert() {
  inverted = !inverted;
  windowImage();
}

function fromMiddle(event) {
  const box = find("stage").getBoundingClientRect();
  return [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
}

const fingers = new Map();

function pointerMoved(event) {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const step = { x: event.clientX - before.x, y: event.clientY - before.y };
  if (fingers.size === 2) {
    const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
    const apart = (point) => Math.hypot(point.x - other.x, point.y - other.y);
    const now = { x: event.clientX, y: event.clientY };
    if (apart(before) > 0) zoomBy(apart(now) / apart(before), ...fromMiddle(event));
  } else if (event.shiftKey || event.buttons === 2) {
    find("level").value = Number(find("level").value) - step.y / 2;
    find("width").value = Number(find("width").value) + step.x;
    windowImage();
  } else {
    view.x += step.x;
    view.y += step.y;
    placeImage();
  }
  fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
}

function listenToImage() {
  const stage = find("stage");
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    stage.classList.add("moving");
  });
  stage.addEventListener("pointermove", pointerMoved);
  for (const end of ["pointerup", "pointercancel"]) {
    stage.addEventListener(end, (event) => {
      fingers.delete(event.pointerId);
      stage.classList.toggle("moving", fingers.size > 0);
    });
  }
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / 400), ...fromMiddle(event));
  }, { passive: false });
  stage.addEventListener("contextmenu", (event) => event.preventDefault());
  stage.addEventListener("dblclick", resetImage);
  find("zoom-in").addEventListener("click", () => zoomBy(1.5));
  find("zoom-out").addEventListener("click", () => zoomBy(1 / 1.5));
  find("invert").addEventListener("click", invert);
  find("reset").addEventListener("click", resetImage);
  find("other-image").addEventListener("click", () => showImage(shownImage + 1));
  find("level").addEventListener("input", windowImage);
  find("width").addEventListener("input", windowImage);
}

// ---- keys ----

function setVerdict(verdict) {
  const study = studies[chosen[place]];
  const before = (notes.get(study.id) || {}).verdict;
  keepNote(study, { verdict: before === verdict ? "" : verdict });
}

const keys = {
  j: () => go(place + 1), ArrowDown: () => go(place + 1), ArrowRight: () => go(place + 1),
  k: () => go(place - 1), ArrowUp: () => go(place - 1), ArrowLeft: () => go(place - 1),
  Home: () => go(0), End: () => go(chosen.length - 1),
  1: () => setVerdict("acceptable"), 2: () => setVerdict("minor"), 3: () => setVerdict("significant"),
  n: () => find("note").focus(), "/": () => find("query").focus(),
  "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: resetImage, i: invert,
};

document.addEventListener("keydown", (event) => {
  const target = event.target;
  if (event.key === "Escape" && target instanceof HTMLElement) target.blur();
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (target.matches("textarea, select, input:not([type=range])")) return;
  // A slider moves by the arrow keys, Home and End itself.
  if (target.matches("input") && event.key.length > 1) return;
  const always = event.key === "/";
  if (!Object.hasOwn(keys, event.key) || (!always && chosen.length === 0)) return;
  event.preventDefault();
  keys[event.key]();
});

// ---- begin ----

for (const button of document.querySelectorAll("[data-verdict]")) {
  button.addEventListener("click", () => setVerdict(button.dataset.verdict));
}
find("note").addEventListener("input", () => keepNote(studies[chosen[place]], { note: find("note").value }));
find("previous").addEventListener("click", () => go(place - 1));
find("next").addEventListener("click", () => go(place + 1));
find("export").addEventListener("click", exportNotes);
find("list").addEventListener("scroll", drawRows);
window.addEventListener("resize", drawRows);
window.addEventListener("storage", () => {
  loadNotes();
  showProgress();
  drawRows();
  if (shown) showNote(shown);
});
find("filters").addEventListener("submit", (event) => event.preventDefault());
find("filters").addEventListener("input", applyFilters);
find("filters").addEventListener("reset", () => setTimeout(applyFilters));
listenToImage();
loadNotes();
fillFindings();
showProgress();
const asked = studies.findIndex((study) => `#${encodeURIComponent(study.id)}` === location.hash);
place = Math.max(0, asked);
applyFilters();
