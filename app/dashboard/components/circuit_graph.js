const held = new WeakMap();
const SVG = "http://www.w3.org/2000/svg";
const REST = 250;
const TALLEST = 600; // from the first layer to the last, so that both are in sight
const SHRINKS_TO = 0.75; // of its own width, where the page is narrow; then it scrolls
const label = (layer, head) => `L${layer}H${head}`;
const drawn = (tag, attributes = {}, ...children) => {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
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
    if (this.layout !== layout) this.build(data);
    this.layout = layout;
    this.selected = data.selected;
    this.player.load({ steps: data.labels.map((text) => ({ label: text })), marks: data.marks, index: data.index });
  }

  place(at) {
    const { layers, heads } = this.data;
    const layer = Math.floor(at / heads), head = at % heads;
    return [this.left + head * this.dx, this.top + (layers - 1 - layer) * this.dy];
  }

  build({ layers, heads }) {
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
      const name = drawn("text", { x: x + this.radius + 10, y: y + 4 });
      name.textContent = this.dx >= 100 ? label(Math.floor(at / heads), at % heads) : `H${at % heads}`;
      const node = drawn("g", { class: "node", role: "button", tabindex: "-1" },
        drawn("circle", { class: "ring", cx: x, cy: y, r: this.radius + 5 }), drawn("circle", { cx: x, cy: y, r: this.radius, class: "dot" }), name);
      node.at = at;
      node.title_ = drawn("title");
      node.prepend(node.title_);
      node.onclick = () => this.pick(node);
      node.onmouseenter = () => this.near(node.at);
      node.onmouseleave = () => this.near(null);
      return node;
    });
    const svg = drawn("svg", { width, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Heads and how strongly later ones read earlier ones" });
    svg.style.maxWidth = `max(100%, ${Math.round(SHRINKS_TO * width)}px)`;
    svg.append(this.edges, names, drawn("g", {}, ...this.nodes));
    this.svg = svg;
    this.find(".canvas").replaceChildren(svg);
  }

  // Edges at a step above the threshold, and paths that carry: [source, destination, z, carries, change without it].
  kept(index) {
    const least = Number(this.range.value);
    return (this.data.edges[index] || []).filter((edge) => edge[3] || (edge[2] !== null && edge[2] >= least));
  }

  paint(index, resting) {
    const { data } = this;
    const kept = this.kept(index), most = data.z_max || 1;
    const linked = new Set(), path = new Set();
    const lines = kept.map(([from, to, z, on]) => {
      const [x1, y1] = this.place(from), [x2, y2] = this.place(to);
      linked.add(from).add(to);
      if (on) path.add(from).add(to);
      const bend = (y1 + y2) / 2;
      const line = drawn("path", { class: on ? "edge path" : "edge", d: `M${x1},${y1}C${x1},${bend} ${x2},${bend} ${x2},${y2}`, "stroke-width": (0.6 + 5 * (Math.max(0, z ?? 0) / most)).toFixed(2) });
      line.ends = [from, to];
      return line;
    });
    this.edges.replaceChildren(...lines);
    const size = data.layers * data.heads, scores = this.scores.subarray(index * size, (index + 1) * size);
    this.nodes.forEach((node, at) => {
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
    this.find(".count").textContent = `showing ${kept.length.toLocaleString()} of ${total.toLocaleString()} edges (${data.what})` + (data.cut ? `; at most the ${data.cut} strongest of a step` : "") + ` · ${data.path_words[data.steps[index]] || ""}`;
    this.root.querySelector(".byrote").dataset.step = data.steps[index];
    if (resting) this.settle(index, kept);
  }

  settle(index, kept) {
    const { data } = this;
    const chosen = this.nodes.findIndex((node) => this.name(node.at) === this.selected);
    this.nodes.forEach((node, at) => {
      node.classList.toggle("selected", at === chosen);
      node.setAttribute("tabindex", at === Math.max(0, chosen) ? "0" : "-1");
      node.setAttribute("aria-label", this.words(at, kept));
      node.setAttribute("aria-pressed", String(at === chosen));
      node.title_.textContent = this.words(at, kept);
    });
    const doubt = data.doubts[data.steps[index]];
    const none = kept.length ? "" : data.edges[index]?.length ? `No edge reaches this z; the highest is ${Math.max(...data.edges[index].map((edge) => edge[2] ?? 0)).toFixed(2)}.` : "No edge was measured here.";
    this.find(".live").textContent = [doubt, none || (chosen >= 0 ? this.words(chosen, kept) : "Select a head to see what it reads.")].filter(Boolean).join(" ");
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
    this.settle(this.player.index, this.kept(this.player.index));
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
    else if (moves[event.key]) {
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
