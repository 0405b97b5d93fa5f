// Errors that the reader marks: on sentences of judged reports, on findings, and for findings that a report lacks.

function cycleError(study, target) {
  const errors = { ...noteOf(study).errors };
  const next = SEVERITIES[SEVERITIES.indexOf(errors[target]) + 1];
  if (next) errors[target] = next;
  else delete errors[target];
  keepNote(study, { errors });
}

function markable(made, study, target, label) {
  made.tabIndex = 0;
  made.setAttribute("role", "button");
  made.dataset.target = target;
  made.dataset.label = label;
  made.addEventListener("click", () => {
    if (!String(getSelection())) cycleError(study, target); // do not mark a sentence from which text is copied
  });
  made.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    cycleError(study, target);
  });
}

function showErrors(study) {
  const { errors } = noteOf(study);
  for (const made of document.querySelectorAll("[data-target]")) {
    const severity = errors[made.dataset.target] || "";
    made.dataset.severity = severity;
    made.setAttribute("aria-label", `${made.dataset.label}: ${severity ? `${severity} error` : "no error"}`);
    if (made.matches(".finding-error")) made.textContent = severity || "–";
  }
  for (const list of document.querySelectorAll(".lacking")) {
    const prefix = `${list.dataset.report}|omitted `;
    list.replaceChildren(...Object.entries(errors).filter(([name]) => name.startsWith(prefix)).map(([name, severity]) => {
      const item = element("button", `${name.slice(prefix.length)}: ${severity}`, "lack");
      item.type = "button";
      item.title = "Change the severity, or remove";
      item.addEventListener("click", () => cycleError(study, name));
      return item;
    }));
  }
  if (data.blind) document.body.classList.toggle("marks-hidden", !finished(study));
}

const FINDINGS = [
  "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion", "Lung Opacity",
  "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices", "Other",
];

function lackingFields(study, report) {
  // What the report should have said has no sentence to click.
  const row = element("div", "", "lacks");
  const select = element("select");
  select.setAttribute("aria-label", `Omitted in ${report.title}`);
  select.append(new Option("Omitted finding…", ""), ...FINDINGS.map((name) => new Option(name)));
  select.addEventListener("change", () => {
    if (select.value) cycleError(study, `${report.key}|omitted ${select.value}`);
    select.value = "";
  });
  const list = element("span", "", "lacking");
  list.dataset.report = report.key;
  row.append(select, list);
  return row;
}
