// Printing: one study a page, those that the filters keep, in their order.

function fillPaper() {
  find("paper").replaceChildren(...chosen.map((index) => {
    const study = studies[index];
    const note = noteOf(study);
    const sheet = element("section", "", "sheet");
    const pictures = element("div", "", "pictures");
    for (let image = 0; image < study.images; image += 1) {
      const source = find(`image-${index}-${image}`);
      if (!source) continue;
      const picture = element("img");
      picture.src = source.textContent;
      const figure = element("figure");
      figure.append(picture, ...(image < study.own ? [] : [element("figcaption", "Prior")]));
      pictures.append(figure);
    }
    const pair = element("div", "", "pair");
    const hidden = data.blind && !finished(study);
    pair.append(...study.reports.map((report) => reportOf(study, report, false)));
    if (hidden) pair.classList.add("unmarked");
    const verdicts = judged(study).map((report) => `${report.title}: ${VERDICTS[note.verdicts[report.key]] || "no verdict"}`);
    const errors = Object.entries(note.errors).map(([name, severity]) => `${name.replace("|", ", ")}: ${severity}`);
    sheet.append(
      element("h2", `Study ${study.id}`),
      element("p", study.indication ? `Indication: ${study.indication}` : "", "indication"),
      pictures,
      pair,
      element("p", [...verdicts, ...errors].join("; ")),
      element("p", note.note),
      element("p", "For research, not for clinical use", "caution"),
    );
    return sheet;
  }));
}
