// The image: zoom, pan and a linear window (PS3.3 C.11.2.1.2).

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
  // The images are at the end of the file, and the browser may not have loaded this one yet.
  const source = shown.images ? find(`image-${studies.indexOf(shown)}-${shownImage}`) : null;
  const waiting = shown.images > 0 && !source && document.readyState === "loading";
  find("image").hidden = !source;
  find("no-image").hidden = Boolean(source);
  find("no-image").textContent = waiting ? "Loading the image…" : "The data folder has no image of this study.";
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
  const limit = { x: ((view.zoom - 1) * stage.clientWidth) / 2, y: ((view.zoom - 1) * stage.clientHeight) / 2 };
  view.x = Math.max(-limit.x, Math.min(limit.x, view.x));
  view.y = Math.max(-limit.y, Math.min(limit.y, view.y));
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
  // (x, y), relative to the centre of the stage, keeps its place.
  const zoom = Math.max(1, Math.min(12, view.zoom * factor));
  const ratio = zoom / view.zoom;
  view = { zoom, x: x - (x - view.x) * ratio, y: y - (y - view.y) * ratio };
  placeImage();
}

function invert() {
  inverted = !inverted;
  windowImage();
}

function fromCentre(event) {
  const box = find("stage").getBoundingClientRect();
  return [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
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
    view.x += step.x;
    view.y += step.y;
    placeImage();
  }
  pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
}

function listenToImage() {
  const stage = find("stage");
  stage.addEventListener("pointerdown", (event) => {
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
    zoomBy(Math.exp(-event.deltaY / 400), ...fromCentre(event));
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
