// Reports, findings and scores of one study.

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
    const describe = ([presence, sides, degree]) =>
      [presence, sides.replace("+", " and "), degrees[degree] || degree].filter(Boolean).join(", ") || "–";
    const sides = [["Generated", generated], ["Reference", reference]].map(([side, one]) => {
      const element = cell("td", describe(one));
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
  // One box per metric, with precision and recall; all other scores in a folded list.
  const headlines = [...new Set(data.headlines)].filter((name) => name in study.scores);
  const parts = headlines.flatMap((name) => ["_precision", "_recall"].map((part) => name + part));
  find("scores").replaceChildren(...headlines.map((name) => {
    const box = document.createElement("div");
    box.className = name === data.orderedBy ? "first" : "";
    box.append(cell("dt", name.replaceAll("_", " ")), cell("dd", number(study.scores[name])));
    if (`${name}_precision` in study.scores) {
      const [precision, recall] = [study.scores[`${name}_precision`], study.scores[`${name}_recall`]];
      box.append(cell("dd", `precision ${number(precision)}, recall ${number(recall)}`, "parts"));
    }
    return box;
  }));
  const others = Object.keys(study.scores).filter((name) => !headlines.includes(name) && !parts.includes(name));
  find("numbers").parentElement.hidden = others.length === 0;
  find("numbers").replaceChildren(...others.map((name) => {
    const line = document.createElement("div");
    line.append(cell("dt", name.replaceAll("_", " ")), cell("dd", number(study.scores[name])));
    return line;
  }));
}

let shown = null;

function show() {
  const found = chosen.length > 0;
  find("main").hidden = !found;
  find("empty").hidden = found;
  find("position").textContent = found ? `${place + 1} of ${chosen.length}` : "0 of 0";
  find("previous").disabled = !found || place === 0;
  find("next").disabled = !found || place === chosen.length - 1;
  scrollToPlace();
  drawRows();
  if (!found) return;
  const study = studies[chosen[place]];
  if (study === shown) return; // keep zoom and window if the filters keep the study
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
