// Starts the components of a page without a server, and keeps one step and one chosen head in all of them.
(async () => {
  const packed = bytes(document.getElementById("program-data").textContent.trim());
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const { parts, cursors } = await new Response(unpacked).json();
  const find = (id, selector) => document.getElementById(id).querySelector(selector);

  for (const part of parts) {
    if (Number.isInteger(part.data.panel)) part.data.scores = parts[0].data.panels[part.data.panel].codes;
    part.caption = document.getElementById(`${part.name}-caption`);
    part.words = part.caption.textContent;
    part.root = find(part.name, ".stage").attachShadow({ mode: "open" });
    part.root.append(document.getElementById(`template-${part.component}`).content.cloneNode(true));
    if (part.frames) frame(part, part.data.index);
    draw(part);
  }
  for (const cursor of cursors) {
    cursor.line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    cursor.line.setAttribute("class", "cursor");
    cursor.line.setAttribute("y1", cursor.top);
    cursor.line.setAttribute("y2", cursor.bottom);
    find(cursor.name, ".still").append(cursor.line);
  }
  for (const part of parts) part.root.addEventListener("byrote-step", ({ detail }) => moved(part, detail));
  moved(parts[0], { index: parts[0].data.index, resting: true });
  document.documentElement.dataset.ready = "true";

  function draw(part) {
    COMPONENTS[part.component]({ data: part.data, parentElement: part.root, setTriggerValue: (name, value) => reported(part, name, value) });
  }

  // What a component would report to a server: a chosen head is chosen everywhere; the rest stays as it is when drawn again.
  function reported(part, name, value) {
    if (name === "head" || name === "open") {
      for (const other of parts) {
        if (!("selected" in other.data)) continue;
        other.data.selected = value;
        if (other !== part) draw(other);
      }
    } else if (name === "q") part.data.lock = value < 0 ? null : value;
    else part.data[name] = value;
    if (name === "open") document.getElementById(`attention-${value}`)?.scrollIntoView();
  }

  // A part came to one of its steps: the others follow. Parts of the baseline have steps of their own, `at` the run's.
  function moved(from, { index, resting }) {
    const step = from.at ? from.at.indexOf(index) : index;
    from.data.index = index;
    if (step < 0) return;
    for (const part of parts) {
      const at = part.at ? part.at[step] : step;
      if (part === from || at === undefined || at < 0) continue;
      part.data.index = at;
      if (part.frames) frame(part, at) && draw(part);
      else part.root.querySelector(".bar").dispatchEvent(new CustomEvent("byrote-go", { detail: { index: at, resting } }));
    }
    for (const { line, x } of cursors) {
      line.setAttribute("x1", x[step]);
      line.setAttribute("x2", x[step]);
    }
  }

  // The last pattern that was saved up to a step, the first one before that; whether another one was shown.
  function frame(part, index) {
    const now = part.frames.findLast((one) => one.index <= index) ?? part.frames[0];
    if (part.shown === now) return false;
    part.shown = now;
    part.data.codes = now.codes;
    part.data.key = String(now.index);
    part.caption.textContent = `${part.words}, ${now.label}`;
    return true;
  }
})();
