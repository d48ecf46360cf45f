// Boxes, polygons and points on a page of images. Each image is an SVG whose viewBox is the part
// of it that is seen, so that coordinates are pixels of the full-size image whatever the zoom.

const COLORS = ["#ffb000", "#33bbee", "#ee3377", "#44dd77", "#bb88ff", "#ff7744", "#ffee55", "#77aaff", "#00ccaa", "#ffaacc"];
const TOOLS = { b: "box", p: "polygon", o: "point" };
const HANDLES = [[0, 0], [0.5, 0], [1, 0], [1, 0.5], [1, 1], [0.5, 1], [0, 1], [0, 0.5]];
const CURSORS = ["nwse", "ns", "nesw", "ew", "nwse", "ns", "nesw", "ew"];
const SENT = 1024; // pixels of an image's longest side, as it is sent first
const CLICK = 4; // pixels of the screen that a click may wander
const PAUSE = 700; // milliseconds without a change until the status is asked for

function draw(tag, attributes, parent, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

const clamp = (value, most) => Math.max(0, Math.min(value, most));
const copy = (object) => structuredClone(object);

function setPoints(object, points) {
  const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
  object.box = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
  if (object.points) object.points = points;
}

const pointsOf = ({ points, box }) => points || [box.slice(0, 2), box.slice(2)];

function move(object, before, dx, dy, [width, height]) {
  const [x0, y0, x1, y1] = before.box;
  const [sx, sy] = [Math.max(-x0, Math.min(dx, width - x1)), Math.max(-y0, Math.min(dy, height - y1))];
  setPoints(object, pointsOf(before).map(([x, y]) => [x + sx, y + sy]));
}

function resize(object, before, handle, [x, y]) {
  if (before.points) {
    setPoints(object, before.points.map((point, i) => (i === handle ? [x, y] : point)));
    return;
  }
  const [hx, hy] = HANDLES[handle];
  const [x0, y0, x1, y1] = before.box;
  setPoints(object, [[hx === 0 ? x : x0, hy === 0 ? y : y0], [hx === 1 ? x : x1, hy === 1 ? y : y1]]);
}

function render({ model, el }) {
  const tab = Math.random().toString(36).slice(2);
  const options = model.get("options");
  const { classes, shapes, review } = options;
  const pages = []; // arrays of cards; an empty one is the queue's end
  const unsaved = new Map(); // seq -> when it was sent, and for which card
  let [here, focused, seq, made] = [0, 0, 0, 0];
  let selected = null; // the id of an object of the card in focus
  let [tool, kind] = [shapes[0], 0];
  let drag = null;
  let corners = null; // of the polygon that is being drawn
  let asked = false; // for one more page
  let pause = 0; // the timer of PAUSE

  const root = make("div", "wb-review wb-boxes", el);
  root.tabIndex = 0;
  root.dataset.lmSuppressShortcuts = "true";
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", review ? "Review of boxes" : "Annotation of boxes");
  make("style", "", root, `#${options.still} { display: none; }`); // for where there is no widget
  const status = make("div", "wb-status", root);
  const chips = make("div", "wb-chips", root);
  const grid = make("div", "wb-grid", root);
  grid.style.gridTemplateColumns = `repeat(${options.columns}, minmax(0, 1fr))`;
  const search = make("div", "wb-search", root);
  search.hidden = true;
  const keys = make("div", "wb-keys", root);
  const said = make("div", "wb-said", root);
  said.setAttribute("role", "status");

  const send = (message) => talk.send(message);
  const page = () => pages[here] || [];
  const card = () => page()[focused];
  const object = () => card() && card().objects.find(({ id }) => id === selected);
  const colorOf = (label) => COLORS[Math.max(0, classes.indexOf(label)) % COLORS.length];
  const boxOf = (item) => grid.querySelector(`[data-at="${item.at}"]`);
  const say = (text) => { said.classList.remove("wb-failed"); said.textContent = text; };

  // Drawing -------------------------------------------------------------------------------------

  function makeCard(item, index) {
    const box = make("figure", "wb-card");
    box.dataset.at = item.at;
    item.view = item.view || copy(item.focus || [0, 0, ...item.size]);
    const svg = draw("svg", { class: "wb-canvas", role: "img", "aria-label": `sample ${item.sample}` }, box);
    svg.addEventListener("pointerdown", (event) => down(event, item, index, svg));
    svg.addEventListener("pointermove", (event) => moved(event, item, svg));
    svg.addEventListener("pointerup", (event) => up(event, item, svg));
    svg.addEventListener("dblclick", () => corners && closePolygon());
    svg.addEventListener("wheel", (event) => {
      if (index !== focused || !root.matches(":focus-within")) return; // the page scrolls
      event.preventDefault();
      zoom(item, event.deltaY < 0 ? 1.25 : 0.8, locate(event, svg));
    }, { passive: false });
    make("figcaption", "", box);
    return box;
  }

  function paint(item) {
    const box = item && boxOf(item);
    if (!box) return;
    const svg = box.querySelector("svg");
    svg.setAttribute("viewBox", item.view.join(" "));
    svg.replaceChildren();
    const matrix = svg.getScreenCTM();
    const unit = matrix ? 1 / matrix.a : 1; // image pixels of a screen pixel
    const [width, height] = item.size;
    draw("image", { href: item.sharp || item.image, width, height, preserveAspectRatio: "none" }, svg);
    const area = ({ box: [x0, y0, x1, y1] }) => (x1 - x0) * (y1 - y0);
    const inFocus = item === card();
    for (const one of [...item.objects].sort((a, b) => area(b) - area(a))) {
      const chosen = one.id === (inFocus ? selected : item.object);
      shape(svg, one, `wb-shape${one.open ? " wb-open" : ""}${chosen ? " wb-selected" : ""}`, unit);
    }
    if (item.suggestion && !item.done) shape(svg, item.suggestion, "wb-shape wb-open wb-suggestion", unit);
    if (inFocus && object()) drawHandles(svg, object(), unit);
    if (inFocus && drag && drag.box) shape(svg, { box: drag.box, label: classes[kind] }, "wb-shape wb-new", unit);
    if (inFocus && corners) {
      draw("polyline", { points: corners.join(" "), class: "wb-outline wb-new", stroke: colorOf(classes[kind]) }, svg);
      for (const [x, y] of corners) draw("circle", { cx: x, cy: y, r: 4 * unit, class: "wb-handle" }, svg);
    }
    const held = item.done && item.done !== "seen" ? (review ? item.done : "complete") : "";
    const open = item.objects.filter((one) => one.open).length;
    const text = item.image ? `${item.objects.length - open} objects${open ? `, ${open} proposed` : ""}` : "cannot be read";
    box.dataset.done = item.done ? "yes" : "";
    box.querySelector("figcaption").replaceChildren(make("b", "", null, held ? `✓ ${held} ` : ""), item.why ? (held ? "" : item.why) : text, make("span", "wb-name", null, item.sample));
  }

  function shape(svg, one, className, unit) {
    const group = draw("g", { class: className }, svg);
    if (one.id) group.dataset.id = one.id;
    const color = colorOf(one.label);
    const [x0, y0, x1, y1] = one.box;
    const form = one.points && one.points.length === 1
      ? ["circle", { cx: x0, cy: y0, r: 5 * unit }]
      : one.points ? ["polygon", { points: one.points.join(" ") }]
        : ["rect", { x: x0, y: y0, width: x1 - x0, height: y1 - y0 }];
    draw(form[0], { ...form[1], class: "wb-halo" }, group);
    draw(form[0], { ...form[1], class: "wb-outline", stroke: color }, group);
    const fits = (x1 - x0) / unit > 7 * (one.label || "").length; // else its colour tells
    if (one.label && (fits || className.includes("selected"))) {
      const place = { x: x0, y: y0 > 14 * unit ? y0 - 4 * unit : y0 + 13 * unit, "font-size": 12 * unit, fill: color };
      draw("text", { ...place, class: "wb-text", "stroke-width": 3 * unit }, group, one.label);
    }
  }

  function drawHandles(svg, one, unit) {
    const [x0, y0, x1, y1] = one.box;
    const places = one.points || HANDLES.map(([x, y]) => [x0 + x * (x1 - x0), y0 + y * (y1 - y0)]);
    const isTiny = Math.min(x1 - x0, y1 - y0) < 24 * unit; // corners only
    places.forEach(([cx, cy], i) => {
      if (!one.points && isTiny && i % 2) return;
      const handle = draw("circle", { cx, cy, r: 4.5 * unit, class: "wb-handle" }, svg);
      handle.dataset.handle = i;
      handle.style.cursor = one.points ? "move" : `${CURSORS[i]}-resize`;
    });
  }

  function drawPage() {
    const cards = pages[here];
    [corners, drag] = [null, null];
    if (cards === undefined) {
      said.textContent = "Loading the next images …";
      return;
    }
    const boxes = cards.map(makeCard);
    if (!boxes.length) boxes.push(make("p", "wb-end", null, review ? "Everything has been looked at." : "Every image is complete or was passed over; run the cell again for the latter. N goes back."));
    grid.replaceChildren(...boxes);
    grid.dataset.page = here;
    const first = cards.findIndex((item) => !item.done);
    focusOn(Math.max(0, first));
    cards.forEach(paint);
    say("");
    prefetch();
    askStatus();
  }

  function drawChips() {
    const shown = classes.slice(0, 20).map((name, i) => {
      const chip = button(chips, classes.length > 10 ? "" : String(i), name, () => setClass(i));
      chip.style.setProperty("--wb-chip", COLORS[i % COLORS.length]);
      chip.classList.toggle("wb-chosen", i === kind);
      return chip;
    });
    const tools = Object.entries(TOOLS).filter(([, name]) => shapes.includes(name)).map(([key, name]) => {
      const chip = button(chips, key, name, () => press(key));
      chip.classList.toggle("wb-chosen", name === tool);
      return chip;
    });
    chips.replaceChildren(...shown, make("span", "wb-gap"), ...(tools.length > 1 ? tools : []));
  }

  function button(parent, key, text, does) {
    const made = make("button", "", parent);
    if (key) make("kbd", "", made, key);
    made.append(` ${text}`);
    made.tabIndex = -1;
    made.addEventListener("mousedown", (event) => { // not a click, which would take the focus
      event.preventDefault();
      root.focus({ preventScroll: true });
      does();
    });
    return made;
  }

  function focusOn(index, id = null) {
    const before = card();
    focused = clamp(index, Math.max(0, page().length - 1));
    selected = id ?? (card() && card().object) ?? null;
    grid.querySelectorAll(".wb-card").forEach((box, i) => box.classList.toggle("wb-focused", i === focused));
    if (before && before !== card()) paint(before);
    paint(card());
  }

  // The mouse -----------------------------------------------------------------------------------

  function locate(event, svg) {
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return [x, y];
  }

  const inside = (item, [x, y]) => [clamp(x, item.size[0]), clamp(y, item.size[1])];

  function down(event, item, index, svg) {
    event.preventDefault();
    root.focus({ preventScroll: true });
    if (index !== focused) { corners = null; focusOn(index); }
    if (event.button > 1) return;
    const group = event.target.closest("[data-id]");
    const id = group ? group.dataset.id : null;
    const handle = event.target.dataset.handle;
    drag = { from: locate(event, svg), screen: [event.clientX, event.clientY], view: copy(item.view), id, far: false };
    drag.before = object() && copy(object());
    if (event.button === 1 || event.shiftKey) drag.does = "pan";
    else if (corners) drag.does = "corner";
    else if (handle !== undefined) Object.assign(drag, { does: "resize", handle: Number(handle) });
    else drag.does = id && id === selected ? "move" : "draw";
    svg.setPointerCapture(event.pointerId);
  }

  function moved(event, item, svg) {
    if (!drag || item !== card()) return;
    const at = locate(event, svg);
    drag.far = drag.far || Math.hypot(event.clientX - drag.screen[0], event.clientY - drag.screen[1]) > CLICK;
    if (!drag.far) return;
    const [dx, dy] = [at[0] - drag.from[0], at[1] - drag.from[1]];
    if (drag.does === "pan") setView(item, [item.view[0] - dx, item.view[1] - dy, ...item.view.slice(2)]);
    else if (drag.does === "move") move(object(), drag.before, dx, dy, item.size);
    else if (drag.does === "resize") resize(object(), drag.before, drag.handle, inside(item, at));
    else if (drag.does === "draw" && tool === "box") {
      const one = { box: [] };
      setPoints(one, [inside(item, drag.from), inside(item, at)]);
      drag.box = one.box;
    }
    paint(item);
  }

  function up(event, item, svg) {
    if (!drag || item !== card()) return;
    const { does, far, id, box, from } = drag;
    drag = null;
    const at = inside(item, from);
    if (does === "corner") corners.push(at);
    else if ((does === "move" || does === "resize") && far) change(item, [object()]);
    else if (does === "draw" && box && box[2] > box[0] && box[3] > box[1]) add(item, { box, points: null });
    else if (does === "draw" && !far && id && (tool === "box" || event.target.closest("circle"))) select(id);
    else if (does === "draw" && !far && tool === "point") add(item, { box: [...at, ...at], points: [at] });
    else if (does === "draw" && !far && tool === "polygon") corners = [at];
    else if (does !== "pan" && !far) select(null);
    paint(item);
  }

  function setView(item, [x, y, width, height]) {
    const [w, h] = item.size;
    const share = Math.min(1, Math.max(width / w, height / h, 0.01));
    const size = width >= w && height >= h ? [w, h] : [share * w, share * h];
    item.view = [clamp(x, w - size[0]), clamp(y, h - size[1]), ...size];
    const needed = (boxOf(item).querySelector("svg").clientWidth * devicePixelRatio * w) / size[0];
    if (!item.sharp && Math.max(w, h) > SENT && needed > 1.2 * SENT) {
      item.sharp = item.image;
      send({ do: "close", at: item.at });
    }
  }

  function zoom(item, factor, at) {
    const [x, y, width, height] = item.view;
    const [x0, y0, x1, y1] = object() ? object().box : [x, y, x + width, y + height];
    const [cx, cy] = at || [(x0 + x1) / 2, (y0 + y1) / 2];
    setView(item, [cx - (cx - x) / factor, cy - (cy - y) / factor, width / factor, height / factor]);
    paint(item);
  }

  // Changes -------------------------------------------------------------------------------------

  function post(item, message) {
    seq += 1;
    unsaved.set(seq, { time: Date.now(), item });
    root.dataset.unsaved = unsaved.size;
    send({ seq, at: item.at, ...message });
  }

  function change(item, objects, done = false) {
    for (const one of objects) one.open = false;
    post(item, { do: "save", changes: objects.map(({ id, label, box, points }) => ({ id, label, box, points })), done });
    paint(item);
  }

  function add(item, form) {
    made += 1;
    const one = { id: `${tab}-${made}`, label: classes[kind], open: false, ...form };
    item.objects.push(one);
    selected = one.id;
    change(item, [one]);
  }

  function addInTheMiddle(item) {
    const [x, y, w, h] = item.view;
    const box = [x + 0.4 * w, y + 0.4 * h, x + 0.6 * w, y + 0.6 * h];
    const middle = [x + w / 2, y + h / 2];
    const ring = [[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]]];
    const forms = { box: { box, points: null }, polygon: { box, points: ring }, point: { box: [...middle, ...middle], points: [middle] } };
    add(item, forms[tool]);
  }

  function closePolygon() {
    const points = corners.filter(([x, y], i) => !i || Math.hypot(x - corners[i - 1][0], y - corners[i - 1][1]) > 0);
    corners = null;
    if (points.length < 3) say("A polygon has three corners or more.");
    else {
      const form = { box: null, points };
      setPoints(form, points);
      add(card(), form);
    }
    paint(card());
  }

  function select(id) {
    selected = id ?? card().object ?? null; // what is asked about stays at hand
    paint(card());
  }

  function remove(item, one) {
    item.objects = item.objects.filter((other) => other !== one);
    selected = null;
    post(item, { do: "save", changes: [{ id: one.id }] });
    paint(item);
    if (review) goOn(item);
  }

  function setClass(number) {
    kind = number;
    drawChips();
    const one = object();
    if (!one) return;
    one.label = classes[number];
    change(card(), [one]);
    if (review) goOn(card());
  }

  function confirm(item) {
    const open = item.objects.filter((one) => one.open && (!object() || one === object()));
    if (open.length) change(item, open);
    else say("There is no proposal to confirm.");
  }

  function complete(item) {
    const open = item.objects.filter((one) => one.open).length;
    item.done = "complete";
    change(item, [], true);
    goOn(item);
    if (open) say(`${open} proposals of sample ${item.sample} were not confirmed and are not taken; z goes back.`);
  }

  function judge(item, verdict) {
    if (!item.done) post(item, { do: "verdict", verdict });
    goOn(item);
  }

  function goOn(item) {
    item.done = item.done || "seen";
    paint(item);
    const open = page().map((other, i) => (other.done ? -1 : i)).filter((i) => i >= 0);
    if (open.length) focusOn(open.find((i) => i > focused) ?? open[0]);
    else turn(1);
  }

  function turn(by) {
    if (here + by < 0 || (by > 0 && pages[here] && !pages[here].length)) return;
    here += by;
    drawPage();
  }

  function nextPage() {
    if (!review) {
      for (const item of page().filter((one) => !one.done)) {
        if (!options.viewedAsDone && !item.objects.some((one) => !one.open)) continue;
        item.done = "complete";
        change(item, [], true);
      }
    }
    turn(1);
  }

  // Keys ----------------------------------------------------------------------------------------

  function arrow(dx, dy, shift) {
    const [item, one] = [card(), object()];
    const [x, y, width, height] = item.view;
    const [sx, sy] = [(dx * width) / 100, (dy * height) / 100];
    if (!one && !shift) {
      const to = focused + dx + dy * options.columns;
      if (to >= 0 && to < page().length) focusOn(to);
    } else if (!one) {
      setView(item, [x + 10 * sx, y + 10 * sy, width, height]);
      paint(item);
    } else {
      const before = copy(one);
      const last = before.points ? before.points.at(-1) : before.box.slice(2);
      if (shift) resize(one, before, before.points ? before.points.length - 1 : 4, inside(item, [last[0] + sx, last[1] + sy]));
      else move(one, before, sx, sy, item.size);
      const flat = !one.points && (one.box[0] === one.box[2] || one.box[1] === one.box[3]);
      if (flat) one.box = before.box;
      else change(item, [one]);
    }
  }

  function press(key, shift = false) {
    const item = card();
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (key === "z") send({ do: "undo" });
    else if (key === "N") turn(-1);
    else if (key === "n") nextPage();
    else if (!item) return false;
    else if (key in arrows) arrow(...arrows[key], shift);
    else if (key in TOOLS && shapes.includes(TOOLS[key])) [tool, corners] = [TOOLS[key], null];
    else if (key === "a") addInTheMiddle(item);
    else if (key === "s" || key === "S") {
      const [ids, step] = [item.objects.map(({ id }) => id), key === "s" ? 1 : -1];
      select(ids[(ids.indexOf(selected) + step + (selected === null && step < 0 ? 1 : 0) + ids.length) % ids.length] ?? null);
    } else if (key === "c") confirm(item);
    else if (["x", "Delete", "Backspace"].includes(key)) object() ? remove(item, object()) : say("Select what to delete with a click, or with s.");
    else if (["+", "=", "-"].includes(key)) zoom(item, key === "-" ? 0.8 : 1.25);
    else if (key === "f") { setView(item, [0, 0, ...item.size]); paint(item); }
    else if (key === "e") { root.classList.toggle("wb-single"); page().forEach(paint); }
    else if (key === "/") openSearch("");
    else if (key === "Enter" && corners) closePolygon();
    else if (key === "Enter" && !review) complete(item);
    else if (review && key === "Enter") judge(item, "take");
    else if (review && key === " ") judge(item, "right");
    else if (review && key === "u") judge(item, "unclear");
    else if (/^[0-9]$/.test(key) && classes.length > 10) openSearch(key);
    else if (/^[0-9]$/.test(key) && Number(key) < classes.length) setClass(Number(key));
    else return false;
    if (key in TOOLS) { drawChips(); paint(item); }
    return true;
  }

  const openSearch = (text) => searchClass({ classes, box: search, root, text, take: setClass });

  root.addEventListener("keydown", (event) => {
    const undo = (event.ctrlKey || event.metaKey) && event.key === "z";
    if (((event.ctrlKey || event.metaKey || event.altKey) && !undo) || event.key === "Tab") return;
    if (event.key === "Escape" && (corners || (selected && selected !== card().object))) {
      corners = null;
      select(null);
    } else if (event.key === "Escape") root.blur();
    else if (press(event.key, event.shiftKey)) event.preventDefault();
    event.stopPropagation();
  });

  function drawKeys() {
    const judging = [["Space", "right as it is", " "], ["Enter", "take the dashed one", "Enter"], ["u", "unclear", "u"], ["x", "spurious", "x"]];
    const drawing = [["Enter", "image complete", "Enter"], ["c", "confirm proposals", "c"], ["x", "delete", "x"]];
    const rest = [["n", "next page", "n"], ["z", "undo", "z"], ["s", "select", "s"], ["a", "add", "a"], ["/", "class", "/"], ["+", "zoom", "+"], ["f", "fit", "f"], ["e", "enlarge", "e"]];
    for (const [key, text, does] of [...(review ? judging : drawing), ...rest]) button(keys, key, text, () => press(does));
    make("span", "wb-hint", keys, "Click an image to use the keys; Esc leaves.");
  }

  // Messages from Python ------------------------------------------------------------------------

  function prefetch() {
    if (asked || here + 1 < pages.length) return;
    if (pages.length && pages[pages.length - 1].length === 0) return;
    asked = true;
    send({ do: "page", skip: pages.flat().map((item) => item.at) });
  }

  function askStatus() {
    clearTimeout(pause);
    send({ do: "status" });
  }

  function take(fresh) {
    const index = pages.findIndex((cards) => cards.some((item) => item.at === fresh.at));
    if (index < 0) return -1;
    const item = pages[index].find((other) => other.at === fresh.at);
    Object.assign(item, { objects: fresh.objects, done: fresh.done, suggestion: fresh.suggestion });
    paint(item);
    return index;
  }

  const answers = {
    pages(message) {
      pages.splice(0, pages.length, ...message.pages);
      here = 0;
      drawPage();
    },
    page(message) {
      asked = false;
      pages.push(message.cards);
      if (here === pages.length - 1) drawPage();
    },
    card({ card: fresh }) { take(fresh); },
    saved(message) {
      unsaved.delete(message.seq);
      clearTimeout(pause);
      if (!unsaved.size) pause = setTimeout(askStatus, PAUSE);
      if (!unsaved.size && said.classList.contains("wb-failed")) say("Saved.");
      watch.draw();
    },
    failed(message) {
      const lost = unsaved.get(message.seq);
      unsaved.delete(message.seq);
      if (lost) send({ do: "card", at: lost.item.at });
      said.classList.add("wb-failed");
      said.textContent = `Not saved: ${message.why}`;
      watch.draw();
    },
    undone({ at, card: fresh }) {
      if (at === null) {
        say("There is nothing to take back.");
        return;
      }
      const index = take(fresh);
      if (index < 0) pages.splice(here, 0, [fresh]);
      if (index !== here) {
        here = Math.max(index, index < 0 ? here : 0);
        drawPage();
      }
      focusOn(page().findIndex((item) => item.at === at));
      askStatus();
      say(`The last change, on sample ${fresh.sample}, is taken back.`);
    },
    close({ at, image }) {
      const item = pages.flat().find((other) => other.at === at);
      if (item) { item.sharp = image; paint(item); }
    },
    status(message) {
      status.replaceChildren(...message.parts.map((part) => make("span", "", null, part)));
      make("span", "wb-who", status, options.reviewer);
    },
  };

  const resized = new ResizeObserver(() => page().forEach(paint));
  resized.observe(grid);
  drawChips();
  drawKeys();
  said.textContent = "Loading …";
  const watch = watchUnsaved({ unsaved, root, said, what: "changes" });
  const talk = converse(model, answers);
  send({ do: "open" });
  return () => {
    watch.end();
    clearTimeout(pause);
    resized.disconnect();
    talk.end();
  };
}

export default { render };
