// Keys, buttons and the start of the page.

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
  // Arrow keys, Home and End move a slider.
  if (target.matches("input") && event.key.length > 1) return;
  const always = event.key === "/";
  if (!Object.hasOwn(keys, event.key) || (!always && chosen.length === 0)) return;
  event.preventDefault();
  keys[event.key]();
});

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
fillFindingFilter();
showProgress();
const linked = studies.findIndex((study) => `#${encodeURIComponent(study.id)}` === location.hash);
place = Math.max(0, linked);
applyFilters();
