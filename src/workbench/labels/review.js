// The grid of the label review. Python has the queue, the decisions and the images; here are the
// keys, and the next page, which is loaded before it is needed.

const KEYS = [
  ["Space", "given is right", " "],
  ["Enter", "take suggestion", "Enter"],
  ["0–9", "class by number", null],
  ["/", "search a class", "/"],
  ["u", "unclear", "u"],
  ["x", "no class fits", "x"],
  ["d", "not for this dataset", "d"],
  [".", "confirm the rest of the page", "."],
  ["z", "undo", "z"],
  ["e", "enlarge", "e"],
  ["+ −", "larger, smaller; zoom", null],
  ["f", "only this class", "f"],
  ["F", "only this pair", "F"],
  ["n", "neighbours", "n"],
];
const PAUSE = 700; // milliseconds without a decision until the status is asked for

function render({ model, el }) {
  const options = model.get("options");
  const { classes } = options;
  const own = options.keys; // key -> the key of KEYS whose work it does, or a class's number
  const pages = []; // arrays of cards; an empty one is the queue's end
  const unsaved = new Map(); // seq -> when it was sent, and for which cards
  let here = 0;
  let focused = 0;
  let seq = 0;
  let asked = false; // for one more page
  let pause = 0; // the timer of PAUSE
  let { columns } = options;
  let only = null; // the filter: given, or given and suggested
  let zoom = 1; // of the enlarged image
  let undoing = false; // Python has not yet said what it took back
  const early = []; // the keys since then: they are meant for the image that comes back

  const root = make("div", "wb-review", el);
  root.tabIndex = 0;
  root.dataset.lmSuppressShortcuts = "true";
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", "Label review");
  // The still page behind the widget is for where there is none.
  make("style", "", root, `#${options.still} { display: none; }`);
  const status = make("div", "wb-status", root);
  const grid = make("div", "wb-grid", root);
  const large = make("div", "wb-large", root);
  large.hidden = true;
  large.addEventListener("mousedown", () => enlarge());
  large.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomBy(event.deltaY < 0 ? 1.25 : 0.8);
  }, { passive: false });
  // The part under the pointer is the one that is seen.
  large.addEventListener("mousemove", ({ clientX, clientY }) => {
    large.firstChild.style.transformOrigin = `${(100 * clientX) / innerWidth}% ${(100 * clientY) / innerHeight}%`;
  });
  const near = make("div", "wb-near", root);
  const search = make("div", "wb-search", root);
  search.hidden = near.hidden = true;
  const keys = make("div", "wb-keys", root);
  const said = make("div", "wb-said", root);
  said.setAttribute("role", "status");

  const send = (message) => talk.send(message);
  const page = () => pages[here] || [];
  const card = () => page()[focused];

  // Drawing -------------------------------------------------------------------------------------

  function resize(by) {
    columns = Math.max(1, Math.min(columns + by, 8));
    grid.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
    // One image fills the window, many share it; none is cropped.
    grid.style.setProperty("--wb-image", `max(96px, min(70vh, ${Math.round(66 / columns)}vw))`);
  }

  function enlarge() {
    large.hidden = !large.hidden;
    if (!large.hidden && card()) {
      const image = make("img", card().small ? "wb-small" : "");
      image.src = card().image;
      image.alt = `sample ${card().sample}, enlarged`;
      large.replaceChildren(image);
      zoom = 1;
    }
  }

  function zoomBy(factor) {
    zoom = Math.max(1, Math.min(zoom * factor, 16));
    large.firstChild.style.transform = `scale(${zoom})`;
  }

  function drawCard(item, index) {
    const box = make("figure", "wb-card");
    box.dataset.at = item.at;
    box.title = `sample ${item.sample}, score ${item.score}`;
    box.addEventListener("mousedown", () => focusOn(index));
    const frame = make("div", "wb-frame", box);
    const image = make("img", "", frame);
    image.src = item.image;
    image.alt = `sample ${item.sample}`;
    if (item.small) image.className = "wb-small";
    box.addEventListener("dblclick", enlarge);
    image.draggable = false;
    make("div", "wb-decision", box);
    const text = make("figcaption", "", box);
    const labels = make("div", "wb-labels", text);
    for (const which of ["given", "suggested"]) {
      const label = make("span", "", labels, `${which} `);
      make("b", "", label, item[which]);
    }
    make("div", "wb-why", text, item.why.join(" · "));
    return box;
  }

  function drawDecision(item) {
    const box = grid.querySelector(`[data-at="${item.at}"]`);
    if (!box) return;
    box.dataset.action = item.held ? item.held.action : "";
    const signs = { confirm: "✓ ", change: "→ ", none: "✕ ", unclear: "? ", pick: "… " };
    const text = item.held ? signs[item.held.action] + item.held.name : "";
    box.querySelector(".wb-decision").textContent = text;
  }

  function drawPage() {
    const cards = pages[here];
    near.hidden = true;
    if (cards === undefined) {
      said.textContent = "Loading the next images …";
      return;
    }
    const boxes = cards.map(drawCard);
    if (!cards.length) {
      boxes.push(make("p", "wb-end", null, only
        ? "Every image of this filter has been reviewed. f shows the others."
        : "Every image has been reviewed. z takes the last decision back."));
    }
    grid.replaceChildren(...boxes);
    grid.dataset.page = here;
    cards.forEach(drawDecision);
    const first = cards.findIndex((item) => !item.held);
    focusOn(first < 0 ? 0 : first);
    said.textContent = "";
    prefetch(); // before the status, which takes Python longer
    askStatus();
  }

  function askStatus() {
    clearTimeout(pause);
    send({ do: "status", at: page().map((item) => item.at) });
  }

  function focusOn(index) {
    focused = Math.max(0, Math.min(index, page().length - 1));
    grid.querySelectorAll(".wb-card").forEach((box, i) => box.classList.toggle("wb-focused", i === focused));
    if (!near.hidden) showNeighbors();
    if (!large.hidden) { large.hidden = true; enlarge(); }
  }

  // Deciding ------------------------------------------------------------------------------------

  function nameOf(item, answer) {
    if (answer === "given") return item.given;
    if (answer === "suggested") return item.suggested;
    if (answer === "none") return "no class";
    if (answer === "exclude") return "excluded";
    if (Array.isArray(answer)) return answer.map((k) => classes[k]).join(" + ") || "no class";
    return answer === "unclear" ? "unclear" : classes[answer];
  }

  function decide(items, answer) {
    const answers = {};
    for (const item of items) {
      const name = nameOf(item, answer);
      const special = { none: "none", exclude: "none", unclear: "unclear" }[answer];
      item.held = { action: special || (name === item.given ? "confirm" : "change"), name };
      answers[item.at] = answer;
      drawDecision(item);
    }
    seq += 1;
    unsaved.set(seq, { time: Date.now(), items });
    send({ do: "decide", seq, answers });
    goOn();
  }

  function decideOne(answer) {
    const item = card();
    if (!item) return;
    if (options.several && typeof answer === "number") { toggle(item, answer); return; }
    if (options.several && answer === "suggested" && item.pick) {
      decide([item], item.pick);
      return;
    }
    if (answer === "suggested" && item.suggested === "none") {
      said.textContent = "There is no suggestion for this image; choose a class.";
    } else if (answer === "given" && item.given === "no class") {
      said.textContent = "This image was given no class; choose one, or x for none.";
    } else {
      said.textContent = "";
      decide([item], answer);
    }
  }

  // Where an image has several labels a key adds or removes one; Enter takes what is chosen.
  function toggle(item, k) {
    item.pick = item.pick || [...item.labels];
    item.pick = item.pick.includes(k) ? item.pick.filter((one) => one !== k) : [...item.pick, k].sort((a, b) => a - b);
    item.held = { action: "pick", name: `${nameOf(item, item.pick)} (Enter)` };
    drawDecision(item);
    item.held = null;
    said.textContent = "";
  }

  function filter(pair) {
    const item = card();
    only = only || !item ? null : { given: item.given, ...(pair ? { suggested: item.suggested === "none" ? "no class" : item.suggested } : {}) };
    said.textContent = "Loading …";
    send({ do: "open", only });
  }

  function goOn() {
    const open = page().map((item, i) => (item.held ? -1 : i)).filter((i) => i >= 0);
    if (open.length) {
      focusOn(open.find((i) => i > focused) ?? open[0]);
      return;
    }
    here += 1;
    while (pages[here] && pages[here].length && pages[here].every((item) => item.held)) here += 1;
    drawPage();
  }

  function prefetch() {
    if (asked || here + 1 < pages.length) return;
    if (pages.length && pages[pages.length - 1].length === 0) return;
    asked = true;
    const skip = pages.flat().filter((item) => !item.held).map((item) => item.at);
    send({ do: "page", skip, only });
  }

  function preload(cards) {
    for (const item of cards) {
      const image = new Image();
      image.src = item.image;
      image.decode().catch(() => {});
    }
  }

  // Search and neighbours -----------------------------------------------------------------------

  function openSearch(text) {
    if (card()) searchClass({ classes, box: search, root, text, take: decideOne, first: card().likely });
  }

  function showNeighbors() {
    const item = card();
    if (!item) return;
    near.hidden = false;
    near.replaceChildren(make("span", "", null, "nearest neighbours …"));
    if (item.near) drawNeighbors(item);
    else send({ do: "neighbors", at: item.at });
  }

  function drawNeighbors(item) {
    if (near.hidden || item !== card()) return;
    near.replaceChildren(make("span", "", null, "nearest neighbours and their labels"));
    for (const other of item.near) {
      const box = make("figure", "", near);
      make("img", "", box).src = other.image;
      make("figcaption", other.given === item.given ? "" : "wb-other", box, other.given);
    }
  }

  // Keys ----------------------------------------------------------------------------------------

  function press(key) {
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    if (key in moves) {
      const to = focused + moves[key];
      if (to >= 0 && to < page().length) focusOn(to);
    } else if (key === " ") decideOne("given");
    else if (key === "Enter") decideOne("suggested");
    else if (key === "u") decideOne("unclear");
    else if (key === "x") decideOne("none");
    else if (key === "d") decideOne("exclude");
    else if (key === "e") enlarge();
    else if (key === "+" || key === "=") (large.hidden ? resize(-1) : zoomBy(1.25));
    else if (key === "-") (large.hidden ? resize(1) : zoomBy(0.8));
    else if (key === "f" || key === "F") filter(key === "F");
    else if (key === "z" || key === "Backspace") {
      undoing = true;
      said.textContent = "Taking back …";
      send({ do: "undo" });
    }
    else if (key === "/") openSearch("");
    else if (key === "n" && options.neighbors) {
      if (near.hidden) showNeighbors();
      else near.hidden = true;
    } else if (key === ".") {
      const open = page().filter((item) => !item.held);
      if (open.length) decide(open, "given");
    } else if (/^[0-9]$/.test(key) && classes.length > 10) openSearch(key);
    else if (/^[0-9]$/.test(key) && Number(key) < classes.length) decideOne(Number(key));
    else return false;
    return true;
  }

  function act(key) {
    if (undoing) early.push(key);
    else if (typeof own[key] === "number") decideOne(own[key]);
    else return press(own[key] ?? key);
    return true;
  }

  function goOnWithKeys() {
    undoing = false;
    while (early.length && !undoing) act(early.shift());
  }

  root.addEventListener("keydown", (event) => {
    const undo = (event.ctrlKey || event.metaKey) && event.key === "z";
    if ((event.ctrlKey || event.metaKey || event.altKey) && !undo) return;
    if (event.key === "Escape") {
      if (large.hidden) root.blur();
      else enlarge();
    }
    else if (event.target.tagName === "BUTTON" && [" ", "Enter"].includes(event.key)) { /* a click */ }
    else if (event.key === "Tab") return;
    else if (act(event.key)) event.preventDefault();
    event.stopPropagation();
  });

  function drawKeys() {
    for (const [key, text, does] of KEYS) {
      if (does === "n" && !options.neighbors) continue;
      const button = make("button", "", keys);
      const theirs = Object.keys(own).find((one) => own[one] === does && does !== null);
      make("kbd", "", button, theirs === " " ? "Space" : theirs ?? key);
      button.append(` ${text}`);
      button.tabIndex = -1;
      if (does === null) button.disabled = true;
      // Not a click, which would take the focus from the grid.
      button.addEventListener("mousedown", (event) => {
        event.preventDefault();
        root.focus({ preventScroll: true });
        if (does) press(does);
      });
    }
    make("span", "wb-hint", keys, "Click the images to use the keys; Esc leaves.");
  }

  // Messages from Python ------------------------------------------------------------------------

  function undone({ at, card: fresh }) {
    if (at === null) {
      said.textContent = "There is nothing to take back.";
      return;
    }
    const index = pages.findIndex((cards) => cards.some((item) => item.at === at));
    if (index < 0) pages.splice(here, 0, [fresh]);
    else {
      const item = pages[index].find((other) => other.at === at);
      item.held = fresh.held;
      here = index;
    }
    drawPage();
    focusOn(page().findIndex((item) => item.at === at));
    said.textContent = `The decision on sample ${fresh.sample} is taken back.`;
  }

  const answers = {
    pages(message) {
      asked = false;
      pages.splice(0, pages.length, ...message.pages);
      here = 0;
      pages.forEach(preload);
      drawPage();
    },
    page(message) {
      asked = false;
      // What was taken back while this page was asked for lies on an earlier one, still open.
      const open = new Set(pages.flat().filter((item) => !item.held).map((item) => item.at));
      const cards = message.cards.filter((item) => !open.has(item.at));
      if (!cards.length && message.cards.length) { prefetch(); return; }
      pages.push(cards);
      preload(cards);
      if (here === pages.length - 1) drawPage();
    },
    saved(message) {
      unsaved.delete(message.seq);
      clearTimeout(pause);
      if (!unsaved.size) pause = setTimeout(askStatus, PAUSE);
      if (!unsaved.size && said.classList.contains("wb-failed")) {
        said.classList.remove("wb-failed");
        said.textContent = "Saved.";
      }
      watch.draw();
    },
    failed(message) {
      const items = (unsaved.get(message.seq) || { items: [] }).items;
      unsaved.delete(message.seq);
      for (const item of items) item.held = null;
      if (items.length) {
        here = pages.findIndex((cards) => cards.includes(items[0]));
        drawPage();
      }
      said.classList.add("wb-failed");
      said.textContent = `Not saved: ${message.why}`;
      goOnWithKeys();
    },
    undone(message) {
      undone(message);
      goOnWithKeys();
    },
    neighbors(message) {
      const item = pages.flat().find((other) => other.at === message.at);
      if (!item) return;
      item.near = message.cards;
      drawNeighbors(item);
    },
    status(message) {
      status.replaceChildren(...message.parts.map((part) => make("span", "", null, part)));
      make("span", "wb-who", status, options.reviewer);
    },
  };

  resize(0);
  drawKeys();
  said.textContent = "Loading …";
  const watch = watchUnsaved({ unsaved, root, said, what: "decisions" });
  const talk = converse(model, answers);
  send({ do: "open" });
  return () => {
    watch.end();
    clearTimeout(pause);
    talk.end();
  };
}

export default { render };
