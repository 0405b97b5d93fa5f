// Filters, order, and the list of studies, of which only the visible rows are in the document.

let chosen = studies.map((_, index) => index);
let place = 0;

// A statement is [presence, sides, severity], with empty strings for what is not stated.
const positive = (statement) => statement[0] === "present" || statement[0] === "uncertain";

function stateOf([, generated, reference, error, contradiction]) {
  if (error) return error;
  if (positive(generated) && positive(reference)) return generated.join() === reference.join() ? "agreed" : "differs";
  return contradiction ? "contradiction" : "";
}

function fillFindingFilter() {
  if (!find("finding")) return;
  const seen = new Map();
  for (const study of studies) {
    for (const finding of study.findings) if (stateOf(finding)) seen.set(finding[0], (seen.get(finding[0]) || 0) + 1);
  }
  for (const [name, count] of seen) find("finding").append(new Option(`${name} (${count})`, name));
}

function hasFinding(study, name, state) {
  return study.findings.some((finding) => (!name || finding[0] === name) && (
    state === "contradiction" ? finding[4] : state ? stateOf(finding) === state : positive(finding[1]) || positive(finding[2])));
}

const errors = (study) => study.findings.filter((finding) => finding[3] || finding[4]).length;
const confidence = (study) => study.scores.mean_logprob ?? Infinity;
const orders = {
  page: (one, other) => one - other,
  findings: (one, other) => errors(studies[other]) - errors(studies[one]) || one - other,
  unsure: (one, other) => confidence(studies[one]) - confidence(studies[other]) || one - other,
  id: (one, other) => (studies[one].id < studies[other].id ? -1 : 1),
};

function applyFilters() {
  const current = studies[chosen[place]];
  const words = find("query").value.toLowerCase().split(/\s+/).filter(Boolean);
  const [range, name, state, read] = ["band", "finding", "state", "read"].map((id) => find(id)?.value || "");
  const band = range && range.split(",").map(Number);
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

function drawRows() {
  const list = find("list");
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
  const last = Math.min(chosen.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 4);
  const rows = [];
  for (let position = first; position < last; position += 1) {
    const study = studies[chosen[position]];
    const row = element("li");
    const button = element("button");
    const name = element("span", (notes.has(study.id) ? "✓ " : "") + study.id, "name");
    row.style.top = `${position * ROW}px`;
    button.type = "button";
    button.setAttribute("aria-current", String(position === place));
    name.title = study.id;
    button.append(name);
    if (study.score !== null) {
      const bar = element("span", "", "bar");
      const fill = element("i");
      fill.style.width = `${Math.round(100 * study.score)}%`;
      bar.append(fill);
      button.append(element("span", number(study.score), "value"), bar);
    }
    button.addEventListener("click", () => {
      go(position);
      openList(false);
    });
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

function openList(open) {
  // The list is always in sight on wide windows, and covers the study on narrow ones.
  document.body.classList.toggle("list-open", open);
  find("position").setAttribute("aria-expanded", String(open));
  drawRows();
  scrollToPlace();
}
