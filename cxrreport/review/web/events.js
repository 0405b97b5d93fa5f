// Keys, buttons and the start of the page.

function pressChoice(digit) {
  const kbd = [...document.querySelectorAll(".choices kbd")].find((one) => one.textContent === digit);
  if (kbd) kbd.parentElement.click();
}

const keys = {
  j: () => go(place + 1), ArrowDown: () => go(place + 1), ArrowRight: () => go(place + 1),
  k: () => go(place - 1), ArrowUp: () => go(place - 1), ArrowLeft: () => go(place - 1),
  Home: () => go(0), End: () => go(chosen.length - 1),
  ...Object.fromEntries([..."123456789"].map((digit) => [digit, () => pressChoice(digit)])),
  n: () => find("note").focus(), "/": () => find("query").focus(),
  "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: resetImage, i: invert,
  v: nextLayout, f: toggleFull,
};

document.addEventListener("keydown", (event) => {
  const target = event.target;
  if (event.key === "Escape" && target instanceof HTMLElement) target.blur();
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (target.matches("textarea, select, input:not([type=range])")) return;
  // Arrow keys, Home and End move a slider.
  if (target.matches("input") && event.key.length > 1) return;
  const always = event.key === "/";
  if (!Object.hasOwn(keys, event.key) || (!always && chosen.length === 0)) return;
  event.preventDefault();
  keys[event.key]();
});

find("note").addEventListener("input", () => keepNote(studies[chosen[place]], { note: find("note").value }));
find("previous").addEventListener("click", () => go(place - 1));
find("next").addEventListener("click", () => go(place + 1));
find("export").addEventListener("click", exportNotes);
find("print").addEventListener("click", () => window.print());
window.addEventListener("beforeprint", fillPaper);
window.addEventListener("afterprint", () => find("paper").replaceChildren());
find("import").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  if (file) importNotes(await file.text());
  event.target.value = "";
});
find("reader").addEventListener("change", (event) => setReader(event.target.value));
find("advance").addEventListener("change", (event) => {
  inStorage(() => localStorage.setItem(`${data.key}.advance`, event.target.checked ? "yes" : ""));
});
find("position").addEventListener("click", () => openList(!document.body.classList.contains("list-open")));
find("list").addEventListener("scroll", drawRows);
window.addEventListener("resize", () => {
  drawRows();
  placeImages();
});
window.addEventListener("storage", () => {
  loadNotes();
  redrawNotes();
});
find("filters").addEventListener("submit", (event) => event.preventDefault());
find("filters").addEventListener("input", applyFilters);
find("filters").addEventListener("reset", () => setTimeout(applyFilters));
listenToImage();
find("advance").checked = Boolean(inStorage(() => localStorage.getItem(`${data.key}.advance`)));
setReader(inStorage(() => localStorage.getItem(`${data.key}.reader`)) || "");
fillFindingFilter();
const linked = studies.findIndex((study) => `#${encodeURIComponent(study.id)}` === location.hash);
place = Math.max(0, linked);
applyFilters();
