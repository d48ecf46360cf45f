// What all panels share: it is read in front of each panel's own script.

const PATIENCE = 4000; // milliseconds until what is unsaved is spoken of

function make(tag, className, parent, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

// The talk with Python: what `answers` does is called for each message to this view. Messages are
// numbered, as JupyterLab may hand the first ones to another thread of the kernel than the rest.
function converse(model, answers) {
  const view = Math.random().toString(36).slice(2);
  let turn = 0;
  const onMessage = (message) => {
    if (message.view === view && answers[message.do]) answers[message.do](message);
  };
  model.on("msg:custom", onMessage);
  return {
    send(message) {
      model.send({ ...message, view, turn });
      turn += 1;
    },
    end() { model.off("msg:custom", onMessage); },
  };
}

// Say once a second what Python has not saved yet: `unsaved` maps numbers to { time } of sending.
function watchUnsaved({ unsaved, root, said, what }) {
  const draw = () => {
    root.dataset.unsaved = unsaved.size;
    if (![...unsaved.values()].some(({ time }) => Date.now() - time > PATIENCE)) return;
    said.classList.add("wb-failed");
    said.textContent = `${unsaved.size} ${what} are not saved yet: the kernel is busy or gone.`;
  };
  const timer = setInterval(draw, 1000);
  return { draw, end() { clearInterval(timer); } };
}

// Ask for a class by a part of its name, or by its number, in `box`; the classes of `first` come
// first where the text tells no difference.
function searchClass({ classes, box, root, text, take, first = [] }) {
  const input = make("input", "");
  const list = make("div", "wb-found");
  let chosen = 0;
  box.hidden = false;
  input.value = text;
  input.placeholder = "class";
  input.setAttribute("aria-label", "Search a class");
  const matches = () => {
    const wanted = input.value.trim().toLowerCase();
    const rank = ({ name, number }) =>
      (String(number) === wanted || name.toLowerCase() === wanted ? 0 : name.toLowerCase().startsWith(wanted) ? 1 : 2);
    const place = ({ number }) => (first.includes(number) ? first.indexOf(number) : classes.length);
    return classes.map((name, number) => ({ name, number }))
      .filter(({ name, number }) => name.toLowerCase().includes(wanted) || String(number) === wanted)
      .sort((a, b) => rank(a) - rank(b) || place(a) - place(b)).slice(0, 12);
  };
  const close = () => {
    box.hidden = true;
    root.focus({ preventScroll: true });
  };
  const choose = (number) => {
    close();
    take(number);
  };
  const update = () => {
    const found = matches();
    chosen = Math.max(0, Math.min(chosen, found.length - 1));
    list.replaceChildren(...found.map(({ name, number }, i) => {
      const button = make("button", i === chosen ? "wb-chosen" : "", null, `${number} ${name}`);
      if (String(number) === name) button.textContent = name;
      button.addEventListener("mousedown", (event) => { event.preventDefault(); choose(number); });
      return button;
    }));
    if (!found.length) list.textContent = "no such class";
    return found;
  };
  input.addEventListener("input", () => { chosen = 0; update(); });
  input.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Escape") close();
    else if (event.key === "ArrowDown" || event.key === "ArrowRight") chosen += 1;
    else if (event.key === "ArrowUp" || event.key === "ArrowLeft") chosen -= 1;
    else if (event.key === "Enter") {
      const found = update();
      if (found.length) choose(found[chosen].number);
    } else return;
    event.preventDefault();
    if (!box.hidden) update();
  });
  box.replaceChildren(input, list);
  update();
  input.focus({ preventScroll: true });
}

