const held = new WeakMap();
const SVG = "http://www.w3.org/2000/svg";
const REST = 250;
const TALLEST = 600; // from the first layer to the last, so that both are in sight
const SHRINKS_TO = 0.75; // of its own width, where the page is narrow; then it scrolls
const MANY = 128; // with more heads than this only those with edges are drawn, in groups by what they are and by layers
const STRONGEST = 24, OF_SELECTED = 8; // edges drawn between groups, and further ones of the selected head
const BANDS = 8, ROWS = 3, ROW_HEIGHT = 21, CELL_HEIGHT = 84, HALF_CELL = 100; // groups of layers; heads of a cell stand in two columns of so many
// Between groups edges run like lines of a metro map: in the gutter left of a column and between groups of layers, where no name stands.
const LANES = 8, LANE = 3, TO_GUTTER = 14, CORNER = 5;
const label = (layer, head) => `L${layer}H${head}`;
const drawn = (tag, attributes = {}, ...children) => {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

// A line through points, its corners rounded.
const rounded = (points) => {
  const parts = [`M${points[0]}`];
  for (let i = 1; i < points.length - 1; i++) {
    const [[ax, ay], [x, y], [bx, by]] = points.slice(i - 1, i + 2);
    const r = Math.min(CORNER, Math.hypot(x - ax, y - ay) / 2, Math.hypot(bx - x, by - y) / 2);
    const toward = (px, py) => [x + Math.sign(px - x) * r, y + Math.sign(py - y) * r];
    parts.push(`L${toward(ax, ay)}Q${x},${y} ${toward(bx, by)}`);
  }
  return `${parts.join("")}L${points.at(-1)}`;
};

// Heads stand where their layer and index put them and never move; edges come and go with the step and the threshold.
class Graph {
  constructor(root) {
    this.root = root;
    this.find = (selector) => root.querySelector(selector);
    this.player = new Player(this.find(".bar"), {
      paint: (index, resting) => this.paint(index, resting),
      rest: (index) => this.say("step", this.data.steps[index]),
    });
    this.range = element("input", { type: "range", min: "0", step: "0.5", "aria-label": "Smallest z drawn" });
    this.value = element("output", {});
    this.lonely = element("input", { type: "checkbox" });
    this.range.oninput = () => {
      this.paint(this.player.index, true);
      clearTimeout(this.waiting);
      this.waiting = setTimeout(() => this.say("z", Number(this.range.value)), REST);
    };
    this.lonely.onchange = () => this.paint(this.player.index, true);
    const threshold = element("label", { text: "Draw edges with z of at least" });
    threshold.append(this.range, this.value);
    const hide = element("label", {});
    hide.append(this.lonely, "hide heads without edges");
    this.find(".options").append(threshold, hide);
    root.addEventListener("keydown", (event) => this.key(event));
  }

  load(data) {
    const layout = `${data.layers}x${data.heads}`;
    this.data = data;
    this.scores = this.scored === data.key ? this.scores : shorts(data.scores);
    this.scored = data.key;
    this.root.querySelector(".byrote").style.setProperty("--path", data.path_color);
    this.roles = bytes(data.role_of);
    this.find(".roles").replaceChildren(...data.roles.map((name, i) => {
      const swatch = element("i", { "aria-hidden": "true" });
      swatch.style.background = data.role_colors[i];
      const item = element("span", {});
      item.append(swatch, name);
      return item;
    }));
    this.range.max = String(data.z_max);
    this.range.value = String(data.z);
    if (this.layout !== layout || this.built !== data.key) this.grouped(data) ? this.buildGroups(data) : this.build(data);
    this.layout = layout;
    this.built = data.key;
    this.lonely.parentNode.hidden = this.grouped(data);
    this.selected = data.selected;
    this.player.load({ steps: data.labels.map((text) => ({ label: text })), marks: data.marks, index: data.index });
  }

  grouped({ layers, heads }) {
    return layers * heads > MANY;
  }

  place(at) {
    if (this.places) return this.places.get(at);
    const { layers, heads } = this.data;
    const layer = Math.floor(at / heads), head = at % heads;
    return [this.left + head * this.dx, this.top + (layers - 1 - layer) * this.dy];
  }

  build({ layers, heads }) {
    this.places = null;
    this.dx = heads <= 8 ? 110 : heads <= 16 ? 62 : 40;
    this.dy = Math.max(30, Math.min(130, Math.round(TALLEST / Math.max(1, layers - 1))));
    this.radius = Math.min(heads <= 8 ? 17 : heads <= 16 ? 13 : 9, Math.round(this.dy / 4));
    this.left = 74;
    this.top = 40;
    const width = this.left + (heads - 1) * this.dx + 84, height = this.top + (layers - 1) * this.dy + 46;
    this.edges = drawn("g");
    const names = drawn("g", { "aria-hidden": "true" });
    for (let l = 0; l < layers; l++) {
      const [, y] = this.place(l * heads);
      const text = drawn("text", { x: 12, y: y + 4, class: "layer" });
      text.textContent = `layer ${l}`;
      names.append(text);
    }
    this.nodes = Array.from({ length: layers * heads }, (_, at) => {
      const [x, y] = this.place(at);
      return this.node(at, x, y, this.dx >= 100 ? label(Math.floor(at / heads), at % heads) : `H${at % heads}`);
    });
    this.frame(width, height, names, ...this.nodes);
  }

  // A head: a dot, and its name on a plate, so that no edge crosses the name; between groups none comes near.
  node(at, x, y, text) {
    const name = drawn("text", { x: x + this.radius + 10, y: y + 4 });
    name.textContent = text;
    const plate = drawn("rect", { class: "plate", x: x + this.radius + 7, y: y - 8, width: 6 + 7.2 * text.length, height: 16, rx: 3 });
    const node = drawn("g", { class: "node", role: "button", tabindex: "-1" }, plate,
      drawn("circle", { class: "ring", cx: x, cy: y, r: this.radius + 5 }), drawn("circle", { cx: x, cy: y, r: this.radius, class: "dot" }), name);
    node.at = at;
    node.title_ = drawn("title");
    node.prepend(node.title_);
    node.onclick = () => this.pick(node);
    node.onmouseenter = () => this.near(node.at);
    node.onmouseleave = () => this.near(null);
    return node;
  }

  frame(width, height, names, ...nodes) {
    const svg = drawn("svg", { width, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Heads and how strongly later ones read earlier ones" });
    svg.style.maxWidth = `max(100%, ${Math.round(SHRINKS_TO * width)}px)`;
    this.drawnNodes = drawn("g", {}, ...nodes);
    svg.append(names, this.edges, this.drawnNodes);
    svg.classList.toggle("grouped", Boolean(this.places));
    this.svg = svg;
    this.find(".canvas").replaceChildren(svg);
  }

  // Many heads: a column for what heads are, a row for a few layers each, the same at every step.
  buildGroups({ layers, heads, steps, edges, roles }) {
    const size = layers * heads, present = new Set();
    edges.forEach((some, i) => some.forEach((edge) => edge.slice(0, 2).forEach((at) => present.add(roles[this.roles[i * size + at]] ?? ""))));
    this.columns = this.data.flow.filter((role) => present.has(role));
    this.perBand = Math.ceil(layers / Math.min(BANDS, layers));
    const bands = Math.ceil(layers / this.perBand);
    this.radius = 7;
    this.left = 116;
    this.top = 42;
    const width = this.left + Math.max(1, this.columns.length) * 2 * HALF_CELL, height = this.top + bands * CELL_HEIGHT + 12;
    this.edges = drawn("g");
    const names = drawn("g", { "aria-hidden": "true" });
    const write = (x, y, text) => {
      const made = drawn("text", { x, y, class: "layer" });
      made.textContent = text;
      names.append(made);
    };
    this.columns.forEach((role, c) => write(this.left + c * 2 * HALF_CELL + 4, 20, role || "not tested"));
    for (let b = 0; b < bands; b++) {
      const y = this.top + (bands - 1 - b) * CELL_HEIGHT, last = Math.min(layers, (b + 1) * this.perBand) - 1;
      if (b % 2) names.append(drawn("rect", { class: "band", x: 4, width: width - 8, y, height: CELL_HEIGHT, rx: 4 }));
      write(12, y + CELL_HEIGHT / 2 + 4, last === b * this.perBand ? `layer ${last}` : `layers ${b * this.perBand}–${last}`);
    }
    this.bands = bands;
    this.nodes = [];
    this.known = new Map();
    this.places = new Map();
    this.frame(width, height, names);
  }

  // The heads with edges at a step go to their cells; where a cell is full, the last place in it stands for the rest.
  settleGroups(index, edges) {
    const { layers, heads, roles } = this.data, cells = new Map(), focused = this.root.getRootNode().activeElement?.at;
    for (const at of [...new Set(edges.flatMap((edge) => edge.slice(0, 2)))].sort((a, b) => a - b)) {
      const role = roles[this.roles[index * layers * heads + at]] ?? "";
      const cell = `${this.columns.indexOf(role)},${Math.floor(Math.floor(at / heads) / this.perBand)}`;
      cells.set(cell, [...(cells.get(cell) || []), at]);
    }
    this.places = new Map();
    this.nodes = [];
    const more = [];
    for (const [cell, members] of cells) {
      const [column, band] = cell.split(",").map(Number), room = 2 * ROWS, full = members.length > room;
      members.forEach((at, i) => {
        const slot = Math.min(i, room - 1), x = this.left + column * 2 * HALF_CELL + 12 + Math.floor(slot / ROWS) * HALF_CELL;
        const y = this.top + (this.bands - 1 - band) * CELL_HEIGHT + 22 + (slot % ROWS) * ROW_HEIGHT;
        this.places.set(at, [full && i >= room - 1 ? x - 9 : x, y, band, 2 * column + Math.floor(slot / ROWS)]);
        if (full && i >= room - 1) {
          if (i > room - 1) return;
          const text = drawn("text", { x: x - 4, y: y + 4, class: "layer" });
          text.textContent = `+${members.length - room + 1} more`;
          more.push(text);
          return;
        }
        const name = label(Math.floor(at / heads), at % heads);
        const known = this.known.get(at);
        const node = known?.x === x && known.y === y ? known.node : this.node(at, x, y, name);
        this.known.set(at, { x, y, node });
        this.nodes.push(node);
      });
    }
    this.drawnNodes.replaceChildren(...more, ...this.nodes);
    if (focused !== undefined) this.nodes.find((node) => node.at === focused)?.focus();
  }

  // What is drawn of the edges above the threshold: of a large model the strongest, and those of the selected head.
  shown(kept) {
    if (!this.places) return kept;
    const first = [...kept.filter((edge) => edge[3]), ...kept.filter((edge) => !edge[3])];
    const mine = first.slice(STRONGEST).filter((edge) => edge.slice(0, 2).some((at) => this.name(at) === this.selected));
    return [...first.slice(0, STRONGEST), ...mine.slice(0, OF_SELECTED)];
  }

  // Edges at a step above the threshold, and paths that carry: [source, destination, z, carries, change without it].
  kept(index) {
    const least = Number(this.range.value);
    return (this.data.edges[index] || []).filter((edge) => edge[3] || (edge[2] !== null && edge[2] >= least));
  }

  paint(index, resting) {
    const { data } = this;
    const above = this.kept(index), kept = this.shown(above);
    const strongest = Math.max(1e-9, ...kept.map((edge) => edge[2] ?? 0)), least = this.places ? Math.min(strongest, ...kept.map((edge) => edge[2] ?? 0)) * 0.9 : 0;
    const most = this.places ? strongest : data.z_max || 1, widest = this.places ? 1.2 : 5;
    const linked = new Set(), path = new Set();
    if (this.places) this.settleGroups(index, kept);
    this.lanes = new Map();
    const lines = kept.map(([from, to, z, on]) => {
      linked.add(from).add(to);
      if (on) path.add(from).add(to);
      const line = drawn("path", { class: on ? "edge path" : "edge", d: this.places ? this.around(this.place(from), this.place(to)) : this.course(...this.place(from), ...this.place(to)), "stroke-width": (0.6 + widest * Math.max(0, ((z ?? 0) - least) / (most - least || 1))).toFixed(2) });
      line.ends = [from, to];
      return line;
    });
    this.edges.replaceChildren(...lines);
    const size = data.layers * data.heads, scores = this.scores.subarray(index * size, (index + 1) * size);
    this.nodes.forEach((node) => {
      const at = node.at;
      const known = scores[at] !== VOID, frac = level(scores[at]) / LEVELS, quiet = !linked.has(at);
      const dot = node.querySelector(".dot");
      dot.setAttribute("r", (this.radius * (known ? 0.55 + 0.45 * frac : 0.5)).toFixed(1));
      const role = this.roles[index * size + at];
      dot.style.fill = role < data.roles.length ? data.role_colors[role] : "none";
      node.classList.toggle("quiet", quiet && !known);
      node.classList.toggle("path", path.has(at));
      node.style.display = quiet && this.lonely.checked ? "none" : "";
    });
    this.svg.classList.toggle("doubted", Boolean(data.doubts[data.steps[index]]));
    this.value.textContent = Number(this.range.value).toFixed(1);
    const total = data.totals[index];
    const cut = data.cut && above.length >= data.cut ? `${data.cut} or more` : above.length.toLocaleString();
    const strongestOf = kept.length < above.length ? `the ${kept.length} strongest of ${cut} edges above this z, of` : `${kept.length.toLocaleString()} of`;
    this.find(".count").textContent = `showing ${strongestOf} ${total.toLocaleString()} ${this.places && kept.length < above.length ? "" : "edges "}(${data.what}) · ${data.path_words[data.steps[index]] || ""}`;
    this.root.querySelector(".byrote").dataset.step = data.steps[index];
    if (resting) this.settle(index, above);
  }

  course(x1, y1, x2, y2) {
    const bend = (y1 + y2) / 2;
    return `M${x1},${y1}C${x1},${bend} ${x2},${bend} ${x2},${y2}`;
  }

  // From group to group: left into the gutter, along it to a gap between groups of layers, over to the other gutter, to the head.
  around([x1, y1, band1, column1], [x2, y2, band2, column2]) {
    const lane = (name) => {
      const used = this.lanes.get(name) || 0;
      this.lanes.set(name, used + 1);
      return LANE * (used % LANES);
    };
    const gutter = (column) => this.left + 12 + column * HALF_CELL - TO_GUTTER - lane(`column ${column}`);
    const from = gutter(column1);
    if (column1 === column2) return rounded([[x1, y1], [from, y1], [from, y2], [x2, y2]]);
    const to = gutter(column2);
    // The least used gap between the two, or that above both.
    const [low, high] = [Math.min(band1, band2), Math.max(band1, band2)];
    const gaps = Array.from({ length: Math.max(1, high - low) }, (_, i) => low + i);
    const gap = gaps.reduce((best, one) => ((this.lanes.get(`gap ${one}`) || 0) < (this.lanes.get(`gap ${best}`) || 0) ? one : best));
    const y = this.top + (this.bands - 1 - gap) * CELL_HEIGHT - (LANES * LANE) / 2 + 2 + lane(`gap ${gap}`);
    return rounded([[x1, y1], [from, y1], [from, y], [to, y], [to, y2], [x2, y2]]);
  }

  settle(index, kept) {
    const { data } = this;
    const here = this.nodes.findIndex((node) => this.name(node.at) === this.selected);
    const chosen = this.position(this.selected);
    this.nodes.forEach((node, i) => {
      node.classList.toggle("selected", i === here);
      node.setAttribute("tabindex", i === Math.max(0, here) ? "0" : "-1");
      node.setAttribute("aria-label", this.words(node.at, kept));
      node.setAttribute("aria-pressed", String(i === here));
      node.title_.textContent = this.words(node.at, kept);
    });
    const doubt = data.doubts[data.steps[index]];
    const none = kept.length ? "" : data.edges[index]?.length ? `No edge reaches this z; the highest is ${Math.max(...data.edges[index].map((edge) => edge[2] ?? 0)).toFixed(2)}.` : "No edge was measured here.";
    this.find(".live").textContent = [doubt, none || (chosen >= 0 ? this.words(chosen, kept) : "Select a head to see what it reads.")].filter(Boolean).join(" ");
  }

  position(name) {
    const found = /^L(\d+)H(\d+)$/.exec(name || "");
    return found ? Number(found[1]) * this.data.heads + Number(found[2]) : -1;
  }

  name(at) {
    return label(Math.floor(at / this.data.heads), at % this.data.heads);
  }

  words(at, kept) {
    const shown = ([, , z, , change]) => change === null ? `z ${z.toFixed(2)}` : `without it prefix matching ${change > 0 ? "+" : ""}${change.toFixed(2)}`;
    const list = (ends, from) => ends.slice(0, 4).map((edge) => `${this.name(edge[from])} (${shown(edge)})`).join(", ");
    const reads = kept.filter((edge) => edge[1] === at), read = kept.filter((edge) => edge[0] === at);
    const parts = [];
    if (reads.length) parts.push(`reads ${list(reads, 0)}`);
    if (read.length) parts.push(`is read by ${list(read, 1)}`);
    const role = this.data.roles[this.roles[this.player.index * this.data.layers * this.data.heads + at]];
    return `${this.name(at)}${role ? ` (${role})` : ""} ${parts.join("; ") || "has no edge drawn"}`;
  }

  near(at) {
    for (const line of this.edges.children) {
      const touches = at !== null && line.ends.includes(at);
      line.classList.toggle("near", touches);
      line.classList.toggle("faded", at !== null && !touches);
    }
  }

  pick(node) {
    this.selected = this.name(node.at);
    if (this.player.playing) this.player.toggle();
    this.paint(this.player.index, true);
    this.say("head", this.selected);
  }

  key(event) {
    const node = event.target.closest?.(".node");
    if (!node) return;
    const { layers, heads } = this.data;
    let l = Math.floor(node.at / heads), h = node.at % heads;
    const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [-1, 0], ArrowUp: [1, 0] };
    if (event.key === "Enter") this.pick(node);
    else if (event.key === " ") this.player.toggle();
    else if (this.places && moves[event.key]) {
      const at = this.nodes.indexOf(node) + (["ArrowRight", "ArrowUp"].includes(event.key) ? 1 : -1);
      this.nodes[Math.max(0, Math.min(this.nodes.length - 1, at))].focus();
    } else if (moves[event.key]) {
      l = Math.max(0, Math.min(layers - 1, l + moves[event.key][0]));
      h = Math.max(0, Math.min(heads - 1, h + moves[event.key][1]));
      this.nodes[l * heads + h].focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  let graph = held.get(parentElement);
  if (!graph) held.set(parentElement, (graph = new Graph(parentElement)));
  graph.say = (name, value) => setTriggerValue(name, value);
  graph.load(data);
  return () => graph.player.sleep();
}
