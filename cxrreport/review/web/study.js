// Reports, findings and scores of one study.

function pieceOf([text, status, label]) {
  if (!status) return document.createTextNode(text);
  const mark = element("span", text, `mark ${status}`);
  mark.title = `${status}: ${label}`;
  mark.setAttribute("role", "mark");
  mark.setAttribute("aria-description", status);
  return mark;
}

function reportOf(study, report, active = true) {
  const article = element("article");
  const body = element("div", "", "report");
  body.id = active ? report.key : "";
  let count = 0;
  for (const [title, sentences] of report.sections) {
    if (title) body.append(element("h4", title));
    const text = element("p");
    for (const sentence of sentences) {
      count += 1;
      const part = element("span", "", "sentence");
      part.append(...sentence.map(pieceOf));
      if (active && report.judged) markable(part, study, `${report.key}|sentence ${count}`, `Sentence ${count}`);
      text.append(part);
    }
    body.append(text);
  }
  if (!count) body.append(element("p", "(empty)", "blank"));
  article.append(element("h3", report.title), body);
  if (active && report.judged) article.append(lackingFields(study, report), element("div", "", "verdict-of"));
  return article;
}

const degrees = { mild: "small or mild", severe: "large or severe" };
const plainState = { omitted: "omitted", hallucinated: "hallucinated", agreed: "agrees", differs: "differs", contradiction: "" };
const plain = (name) => name.replaceAll("_", " ");

function describe([presence, sides, degree]) {
  return [presence, sides.replace("+", " and "), degrees[degree] || degree].filter(Boolean).join(", ") || "–";
}

function findingRow(study, finding) {
  const [name, generated, reference, , contradiction] = finding;
  const state = stateOf(finding);
  const row = element("tr", "", state);
  const heading = element("th", name);
  heading.scope = "row";
  const verdict = element("td", plainState[state], "state");
  if (contradiction) verdict.append(" ", element("b", "contradicts itself"));
  const sides = [["Generated", generated], ["Reference", reference]].map(([side, statement]) => {
    const made = element("td", describe(statement));
    made.dataset.side = side;
    return made;
  });
  const error = element("td");
  error.dataset.side = "Error";
  const button = element("span", "–", "finding-error");
  markable(button, study, `generated|${name}`, name);
  error.append(button);
  row.append(heading, ...sides, verdict, error);
  return row;
}

function fillTable(study) {
  const rows = study.findings.filter(stateOf);
  find("findings").hidden = rows.length === 0;
  find("finding-rows").replaceChildren(...rows.map((finding) => findingRow(study, finding)));
  const absent = ([name, ...sides]) => name !== "No Finding" && sides.slice(0, 2).every((one) => one[0] === "absent");
  const denied = study.findings.filter(absent).map((one) => one[0]);
  find("denied").textContent = denied.length ? `Denied in both: ${denied.join(", ")}.` : "";
}

function fillScores(study) {
  // One box per metric, with precision and recall; all other scores in a folded list.
  const value = (name) => number(study.scores[name], name);
  const headlines = [...new Set(data.headlines)].filter((name) => name in study.scores);
  const parts = headlines.flatMap((name) => ["_precision", "_recall"].map((part) => name + part));
  find("scores").replaceChildren(...headlines.map((name) => {
    const box = element("div", "", name === data.orderedBy ? "first" : "");
    box.append(element("dt", plain(name)), element("dd", value(name)));
    if (`${name}_precision` in study.scores) {
      box.append(element("dd", `precision ${value(`${name}_precision`)}, recall ${value(`${name}_recall`)}`, "parts"));
    }
    return box;
  }));
  const others = Object.keys(study.scores).filter((name) => !headlines.includes(name) && !parts.includes(name));
  find("numbers").parentElement.hidden = others.length === 0;
  find("numbers").replaceChildren(...others.map((name) => {
    const line = element("div");
    line.append(element("dt", plain(name)), element("dd", value(name)));
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
  find("where").textContent = study.notes.join(" · ");
  find("indication").hidden = !study.indication;
  find("indication").replaceChildren(element("b", "Indication: "), study.indication);
  find("pair").replaceChildren(...study.reports.map((report) => reportOf(study, report)));
  fillTable(study);
  fillScores(study);
  showNote(study);
  showErrors(study);
  showImages();
  history.replaceState(null, "", `#${encodeURIComponent(study.id)}`);
}

function go(position) {
  if (position < 0 || position >= chosen.length || position === place) return;
  if (document.activeElement === find("note")) find("note").blur();
  place = position;
  show();
}
