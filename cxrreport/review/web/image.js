// The images: side by side or one at a time; zoom, pan and a linear window (PS3.3 C.11.2.1.2).

let layout = -1; // number of the image, or -1 for all side by side
let active = 0; // pane that keys and buttons zoom
let views = [];
let inverted = false;
let full = false;

const panes = () => [...find("panes").children];
const imageName = (image) => `image-${studies.indexOf(shown)}-${image}`;
const sharp = new Set(data.full);

function showImages() {
  layout = -1;
  full = false;
  find("other-image").hidden = shown.images < 2;
  find("full").hidden = !Array.from({ length: shown.images }, (_, image) => imageName(image)).some((name) => sharp.has(name));
  drawPanes();
}

function drawPanes() {
  const count = shown.images;
  const visible = layout < 0 ? Array.from({ length: count }, (_, image) => image) : [layout];
  find("other-image").textContent = layout < 0 ? `All ${count} images` : `Image ${layout + 1} of ${count}`;
  find("full").setAttribute("aria-pressed", String(full));
  find("panes").className = `panes of-${Math.min(visible.length, 4)}`;
  find("panes").replaceChildren(...visible.map((image) => {
    const pane = element("div", "", "pane");
    const picture = element("img");
    picture.alt = `Radiograph ${image + 1} of study ${shown.id}`;
    if (image >= shown.own) {
      picture.alt = `Prior radiograph of study ${shown.id}`;
      pane.append(element("span", "Prior", "prior"));
    }
    picture.draggable = false;
    pane.dataset.image = image;
    pane.prepend(picture);
    return pane;
  }));
  resetImage();
  fetchImages();
}

function fetchImages() {
  // The images are at the end of the file, and the browser may not have loaded them yet.
  let waiting = false;
  for (const pane of panes()) {
    const name = imageName(Number(pane.dataset.image));
    const source = find(name);
    const address = full && sharp.has(name) ? `${encodeURIComponent(data.folder)}/${name}.jpg` : source?.textContent;
    if (address && pane.firstChild.getAttribute("src") !== address) pane.firstChild.src = address;
    pane.firstChild.hidden = !address;
    waiting ||= !source && document.readyState === "loading";
  }
  find("no-image").hidden = !waiting && shown.images > 0;
  find("no-image").textContent = waiting ? "Loading the images…" : "The data folder has no image of this study.";
  clearTimeout(fetchImages.again);
  if (waiting) fetchImages.again = setTimeout(fetchImages, 50);
}

function nextLayout() {
  if (shown.images < 2) return;
  layout = layout + 1 < shown.images ? layout + 1 : -1;
  drawPanes();
}

function toggleFull() {
  if (find("full").hidden) return;
  full = !full;
  find("full").setAttribute("aria-pressed", String(full));
  fetchImages();
}

function resetImage() {
  views = panes().map(() => ({ zoom: 1, x: 0, y: 0 }));
  active = 0;
  inverted = false;
  find("level").value = 128;
  find("width").value = 256;
  placeImages();
  windowImage();
}

function placeImages() {
  panes().forEach((pane, index) => {
    const view = views[index];
    const limit = { x: ((view.zoom - 1) * pane.clientWidth) / 2, y: ((view.zoom - 1) * pane.clientHeight) / 2 };
    view.x = Math.max(-limit.x, Math.min(limit.x, view.x));
    view.y = Math.max(-limit.y, Math.min(limit.y, view.y));
    pane.firstChild.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.zoom})`;
  });
  find("zoom").textContent = `${Math.round(100 * (views[active]?.zoom || 1))}%`;
  find("stage").classList.toggle("zoomed", views.some((view) => view.zoom > 1));
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
  // (x, y), relative to the centre of the active pane, keeps its place.
  const view = views[active];
  if (!view) return;
  const zoom = Math.max(1, Math.min(12, view.zoom * factor));
  const ratio = zoom / view.zoom;
  views[active] = { zoom, x: x - (x - view.x) * ratio, y: y - (y - view.y) * ratio };
  placeImages();
}

function invert() {
  inverted = !inverted;
  windowImage();
}

function fromCentre(event) {
  const box = (panes()[active] || find("stage")).getBoundingClientRect();
  return [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
}

function activate(event) {
  const pane = event.target.closest(".pane");
  if (pane) active = panes().indexOf(pane);
}

const pointers = new Map();

function pointerMoved(event) {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const step = { x: event.clientX - before.x, y: event.clientY - before.y };
  if (pointers.size === 2) {
    const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
    const apart = (point) => Math.hypot(point.x - other.x, point.y - other.y);
    const now = { x: event.clientX, y: event.clientY };
    if (apart(before) > 0) zoomBy(apart(now) / apart(before), ...fromCentre(event));
  } else if (event.shiftKey || event.buttons === 2) {
    find("level").value = Number(find("level").value) - step.y / 2;
    find("width").value = Number(find("width").value) + step.x;
    windowImage();
  } else {
    const view = views[active];
    if (!view) return;
    view.x += step.x;
    view.y += step.y;
    placeImages();
  }
  pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
}

function listenToImage() {
  const stage = find("stage");
  stage.addEventListener("pointerdown", (event) => {
    activate(event);
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    stage.classList.add("moving");
  });
  stage.addEventListener("pointermove", pointerMoved);
  for (const end of ["pointerup", "pointercancel"]) {
    stage.addEventListener(end, (event) => {
      pointers.delete(event.pointerId);
      stage.classList.toggle("moving", pointers.size > 0);
    });
  }
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (!pointers.size) activate(event);
    zoomBy(Math.exp(-event.deltaY / 400), ...fromCentre(event));
  }, { passive: false });
  stage.addEventListener("contextmenu", (event) => event.preventDefault());
  stage.addEventListener("dblclick", resetImage);
  find("zoom-in").addEventListener("click", () => zoomBy(1.5));
  find("zoom-out").addEventListener("click", () => zoomBy(1 / 1.5));
  find("invert").addEventListener("click", invert);
  find("reset").addEventListener("click", resetImage);
  find("other-image").addEventListener("click", nextLayout);
  find("full").addEventListener("click", toggleFull);
  find("level").addEventListener("input", windowImage);
  find("width").addEventListener("input", windowImage);
}
