// What all panels share: it is read in front of each panel's own script.

function make(tag, className, parent, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
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

