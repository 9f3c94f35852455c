const SHOWN = { value: "value", previous: "change since the checkpoint before", final: "difference from the last checkpoint", base: "difference from the baseline" };
const LEAST = 12, LOWEST = 9; // of a cell, in pixels: below that it cannot be hit, or told from its neighbours
const FEW = 8, READABLE = 36; // so few heads a layer stand below one another rather than smaller than this
const WIDEST = 112; // of a cell: a small model fills the page, and its numbers still stand together
const TALLEST = 640; // what a grid should not exceed, so that a whole deep model plays in sight
const NAMES = 40, GAP = 28, WRITABLE = 30; // the column of names; between two grids; a cell that holds a number
const COURSE = 92, COURSE_EDGE = 8, COURSE_LEFT = 44; // height of the chosen head's curve below the grids, what is free around it, and room for the scale
const held = new WeakMap();

const label = (layer, head) => `L${layer}H${head}`;
const luminance = (color) => {
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16) / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const inkOn = (color) => (luminance(color) > 0.2 ? "#111111" : "#ffffff");
const signed = (text, value) => (value > 0 ? `+${text}` : text).replace("-", "−");

const hasRole = (data, role) => data.panels.some((panel) => panel.role === role);

class Grid {
  constructor(root, tell) {
    this.root = root;
    this.tell = tell;
    this.find = (selector) => root.querySelector(selector);
    this.player = new Player(this.find(".bar"), {
      paint: (index, resting) => this.paint(index, resting),
      rest: (index) => this.tell("step", this.data.steps[index]),
    });
    this.values = element("input", { type: "checkbox" });
    this.fitted = element("input", { type: "checkbox" });
    this.show = element("select", { "aria-label": "What the cells show" });
    for (const box of [this.values, this.fitted]) box.onchange = () => this.repaint();
    this.show.onchange = () => {
      this.repaint();
      this.tell("show", this.show.value);
    };
    this.showing = element("label", { text: "Show " }, this.show);
    this.numbers = element("label", {}, this.values, "numbers in cells");
    this.find(".options").replaceChildren(this.showing, this.numbers, element("label", {}, this.fitted, "fit colours to the data"));
    root.addEventListener("keydown", (event) => this.key(event));
    this.find(".panels").addEventListener("click", (event) => this.pick(event.target.closest(".cell")));
    this.find(".panels").addEventListener("dblclick", (event) => this.open(event.target.closest(".cell")));
    this.find(".panels").addEventListener("mouseover", (event) => this.name(event.target.closest(".cell")));
    this.find(".panels").addEventListener("focusin", (event) => this.name(event.target.closest(".cell")));
  }

  load(data) {
    const layout = `${data.layers}x${data.heads}x${data.panels.length}`;
    if (this.key_ !== data.key) {
      this.key_ = data.key;
      this.series = data.panels.map((panel) => ({ codes: shorts(panel.codes), at: panel.at }));
      this.extremes = null;
    }
    this.data = data;
    this.selected = data.selected;
    this.ink = data.colors.map(inkOn);
    this.differenceInk = data.differences.map(inkOn);
    this.options(data);
    if (this.layout !== layout) this.build(data);
    this.layout = layout;
    this.fit();
    this.panels.forEach((panel, i) => {
      panel.title.textContent = data.panels[i].title;
      panel.grid.setAttribute("aria-label", `${data.panels[i].title}: ${data.what} by layer and head`);
    });
    this.player.load({ steps: data.labels.map((text) => ({ label: text })), marks: data.marks, index: data.index });
  }

  options(data) {
    const wanted = Object.entries(SHOWN).filter(([name]) => name !== "base" || data.panels.length > 1);
    if (this.show.options.length !== wanted.length) {
      this.show.replaceChildren(...wanted.map(([name, text]) => element("option", { value: name, text })));
    }
    this.show.value = data.show;
    this.showing.hidden = hasRole(data, "difference");
    if (!this.chosen) this.values.checked = data.cell >= 38;
    this.chosen = true;
  }

  // Cells as large as the page allows: the grids side by side where that leaves enough to hit, else one below another.
  fit() {
    const { layers, heads, panels } = this.data;
    const host = this.root.querySelector(".byrote"), width = host.clientWidth;
    if (!width) return;
    this.width = width;
    const room = (n) => Math.floor(((width - GAP * (n - 1)) / n - NAMES) / heads) - 2;
    let beside = panels.length;
    while (beside > 1 && room(beside) < (heads <= FEW ? READABLE : LEAST)) beside -= 1;
    this.cell = Math.max(LEAST, Math.min(WIDEST, room(beside)));
    const height = Math.min(Math.max(22, Math.round(0.8 * Math.min(this.cell, 64))), Math.max(LOWEST, Math.floor(TALLEST / layers) - 2));
    host.style.setProperty("--cell-width", `${this.cell}px`);
    host.style.setProperty("--cell-height", `${height}px`);
    this.numbers.hidden = this.cell < WRITABLE;
    const every = [Math.ceil(14 / (height + 2)), Math.ceil(28 / (this.cell + 2))]; // names that would touch are left out
    for (const panel of this.panels) {
      panel.rows.forEach((name, l) => { name.textContent = l % every[0] ? "" : `L${l}`; });
      panel.columns.forEach((name, h) => { name.textContent = h % every[1] ? "" : `H${h}`; });
    }
  }

  // The page became wider or narrower; a scroll bar that comes or goes does not count.
  resize() {
    if (!this.data || Math.abs(this.root.querySelector(".byrote").clientWidth - (this.width ?? 0)) < 20) return;
    this.fit();
    this.repaint();
  }

  build(data) {
    this.panels = data.panels.map((panel, p) => {
      const title = element("figcaption", { id: `title${p}` });
      const grid = element("div", { class: "cells", role: "grid", "aria-rowcount": data.layers + 1, "aria-colcount": data.heads + 1 });
      grid.style.gridTemplateColumns = `34px repeat(${data.heads}, var(--cell-width))`;
      const cells = [], rows = [], columns = [];
      const top = element("div", { class: "row", role: "row" }, element("div", { class: "name top corner", role: "columnheader", text: "layer" }));
      for (let h = 0; h < data.heads; h++) columns.push(element("div", { class: "name top", role: "columnheader", "aria-label": `head ${h}` }));
      top.append(...columns);
      grid.append(top);
      for (let l = 0; l < data.layers; l++) {
        rows.push(element("div", { class: "name", role: "rowheader", "aria-label": `layer ${l}` }));
        const row = element("div", { class: "row", role: "row" }, rows[l]);
        for (let h = 0; h < data.heads; h++) {
          const cell = element("div", { class: "cell", role: "gridcell", tabindex: "-1" });
          cell.at = l * data.heads + h;
          cell.panel = p;
          cells.push(cell);
          row.append(cell);
        }
        grid.append(row);
      }
      const frame = element("figure", { class: `panel ${panel.role}` }, title, element("div", { class: "scroll" }, grid));
      return { frame, grid, cells, rows, columns, title, last: new Int32Array(cells.length).fill(-1) };
    });
    this.find(".panels").replaceChildren(...this.panels.map((panel) => panel.frame));
  }

  repaint() {
    for (const panel of this.panels) panel.last.fill(-1);
    this.extremes = null;
    this.player.draw(true);
  }

  // The codes a panel shows at a step of the run, and those they are subtracted from; null where there is no such step.
  frame(p, index) {
    const size = this.data.layers * this.data.heads, series = this.series[p];
    const cut = (q, i) => (i < 0 ? null : this.series[q].codes.subarray(i * size, (i + 1) * size));
    const at = series.at ? series.at[index] : index;
    const role = this.data.panels[p].role, show = this.show.value;
    if (role === "difference") return { now: cut(0, index), from: cut(1, this.series[1].at[index]) };
    if (p > 0 || show === "value") return { now: cut(p, at), from: undefined };
    if (show === "previous") return { now: cut(0, index), from: cut(0, index - 1) };
    if (show === "final") return { now: cut(0, index), from: cut(0, this.data.steps.length - 1) };
    return { now: cut(0, index), from: cut(1, this.series[1].at[index]) };
  }

  // (lowest, highest) level for the colours: the whole range, or what the series reaches.
  range(p, difference) {
    if (!this.fitted.checked) return difference ? [-LEVELS, LEVELS] : [0, LEVELS];
    this.extremes ??= {};
    const name = difference ? "difference" : "value";
    if (!this.extremes[name]) this.extremes[name] = this.extreme(difference);
    return this.extremes[name];
  }

  extreme(difference) {
    let lo = LEVELS, hi = 0, most = 1;
    for (let i = 0; i < this.data.steps.length; i++) {
      for (let p = 0; p < this.series.length; p++) {
        const { now, from } = this.frame(p, i);
        if (!now || from === null || (from !== undefined) !== difference) continue;
        for (let k = 0; k < now.length; k++) {
          if (now[k] === VOID || (from && from[k] === VOID)) continue;
          const v = level(now[k]);
          if (from) most = Math.max(most, Math.abs(v - level(from[k])));
          else { lo = Math.min(lo, v); hi = Math.max(hi, v); }
        }
      }
    }
    return difference ? [-most, most] : [lo, Math.max(hi, lo + 1)];
  }

  paint(index, resting) {
    const { data } = this;
    this.panels.forEach((panel, p) => {
      const { now, from } = this.frame(p, index);
      const difference = from !== undefined;
      const palette = difference ? data.differences : data.colors, ink = difference ? this.differenceInk : this.ink;
      const [lo, hi] = this.range(p, difference), last = palette.length - 1;
      const written = this.values.checked && this.cell >= WRITABLE;
      for (let k = 0; k < panel.cells.length; k++) {
        const cell = panel.cells[k];
        const gone = !now || now[k] === VOID || from === null || Boolean(from && from[k] === VOID);
        const v = gone ? -1 : difference ? level(now[k]) - level(from[k]) : level(now[k]);
        const mark = gone ? 3 * VOID : difference ? v + 2 * VOID : now[k];
        if (panel.last[k] === mark) continue;
        panel.last[k] = mark;
        cell.classList.toggle("void", gone);
        cell.classList.toggle("clipped", !gone && !difference && now[k] > LEVELS);
        const tone = gone ? 0 : Math.max(0, Math.min(last, Math.round(((v - lo) / (hi - lo)) * last)));
        cell.style.backgroundColor = gone ? "" : palette[tone];
        cell.style.color = gone ? "" : ink[tone];
        cell.textContent = written && !gone ? this.number(v, difference) : "";
      }
      panel.frame.classList.toggle("doubted", p === 0 && Boolean(data.doubts[data.steps[index]]));
    });
    this.root.querySelector(".byrote").dataset.step = data.steps[index];
    this.course(index, resting);
    this.find(".live").setAttribute("aria-live", resting ? "polite" : "off"); // it plays along, and is read out at rest
    const at = this.position(this.selected);
    if (!resting && at >= 0) this.find(".live").textContent = `${this.words(0, at, index)}, at ${data.labels[index]}.`;
    if (resting) this.settle(index);
  }

  // The chosen head in the run and in the baseline over all checkpoints, on the whole range, and a rule that plays along.
  course(index, resting) {
    const { data } = this, host = this.find(".course"), n = data.steps.length;
    host.hidden = this.position(this.selected) < 0 || n < 2 || !this.width;
    if (host.hidden) return;
    const x = (i) => COURSE_LEFT + (i / (n - 1)) * (this.width - COURSE_LEFT - COURSE_EDGE);
    const y = (frac) => COURSE - COURSE_EDGE - frac * (COURSE - 2 * COURSE_EDGE);
    if (resting || !this.cursor) this.curves(host, x, y);
    this.cursor.setAttribute("x1", x(index));
    this.cursor.setAttribute("x2", x(index));
    for (const [dot, values] of this.dots) {
      const value = values[index];
      dot.style.display = value === null ? "none" : "";
      if (value !== null) { dot.setAttribute("cx", x(index)); dot.setAttribute("cy", y(value)); }
    }
  }

  curves(host, x, y) {
    const { data } = this, at = this.position(this.selected), size = data.layers * data.heads;
    const made = (tag, attributes) => {
      const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
      return node;
    };
    const level_ = (height, name) => made("line", { class: name, x1: x(0), x2: x(data.steps.length - 1), y1: y(height), y2: y(height) });
    const svg = made("svg", { height: COURSE, viewBox: `0 0 ${this.width} ${COURSE}`, preserveAspectRatio: "none" });
    svg.append(level_(0, "edge"), level_(1, "edge"));
    for (const frac of [0, 1]) {
      const label = made("text", { x: COURSE_LEFT - 8, y: y(frac) + 4, "text-anchor": "end" });
      label.textContent = this.number(frac * LEVELS, false);
      svg.append(label);
    }
    if (data.chance_frac !== null) svg.append(level_(data.chance_frac, "chance"));
    this.dots = [];
    data.panels.forEach((panel, p) => {
      if (panel.role === "difference") return;
      const values = data.steps.map((_, i) => {
        const place = panel.at ? panel.at[i] : i, code = place < 0 ? VOID : this.series[p].codes[place * size + at];
        return code === VOID ? null : level(code) / LEVELS;
      });
      let d = "", open = false;
      values.forEach((value, i) => {
        if (value !== null) d += `${open ? "L" : "M"}${x(i).toFixed(1)},${y(value).toFixed(1)}`;
        open = value !== null;
      });
      const dot = made("circle", { r: 4, class: panel.role });
      svg.append(made("path", { d, class: panel.role }), dot);
      this.dots.push([dot, values]);
    });
    this.cursor = made("line", { y1: 0, y2: COURSE });
    svg.append(this.cursor);
    host.replaceChildren(svg);
  }

  // What need not be right while playing: names, tab stops, rings, the legend and the spoken line.
  settle(index) {
    const { data } = this;
    const pinned = new Set(data.pinned);
    this.panels.forEach((panel, p) => {
      panel.cells.forEach((cell) => {
        const name = label(Math.floor(cell.at / data.heads), cell.at % data.heads);
        const chosen = name === this.selected;
        cell.setAttribute("aria-selected", String(chosen));
        cell.tabIndex = chosen || (!this.selected && cell.at === 0) ? 0 : -1;
        cell.classList.toggle("pinned", p === 0 && pinned.has(name));
        cell.setAttribute("aria-label", this.words(p, cell.at, index));
      });
    });
    this.legend(index);
    const at = this.position(this.selected);
    const doubt = data.doubts[data.steps[index]];
    this.find(".live").textContent = [doubt, at < 0 ? "Select a head to follow it." : `${this.words(0, at, index)}, at ${data.labels[index]}.`].filter(Boolean).join(". ");
  }

  position(name) {
    const found = /^L(\d+)H(\d+)$/.exec(name || "");
    return found ? Number(found[1]) * this.data.heads + Number(found[2]) : -1;
  }

  number(v, difference) {
    const { lo, hi, decimals } = this.data;
    const value = difference ? (v / LEVELS) * (hi - lo) : lo + (v / LEVELS) * (hi - lo);
    const text = value.toFixed(decimals);
    return difference ? signed(text, value) : text.replace("-", "−");
  }

  words(p, k, index) {
    const { data } = this;
    const name = label(Math.floor(k / data.heads), k % data.heads);
    const { now, from } = this.frame(p, index);
    if (!now) return `${name}: the baseline has no checkpoint here`;
    if (now[k] === VOID) return `${name}: not measured`;
    const v = level(now[k]);
    if (from !== undefined) {
      if (from === null || from[k] === VOID) return `${name}: nothing to subtract`;
      const minus = data.panels[p].role === "difference" ? SHOWN.base : SHOWN[this.show.value];
      return `${name}, ${data.what} ${this.number(v - level(from[k]), true)}, ${minus}`;
    }
    let rank = 1, measured = 0;
    for (const code of now) {
      if (code === VOID) continue;
      measured += 1;
      if (level(code) > v) rank += 1;
    }
    const before = this.series[p].at ? null : index > 0 ? this.series[p].codes[(index - 1) * now.length + k] : null;
    const change = before === null || before === VOID ? 0 : v - level(before);
    const trend = Math.abs(change) < 0.008 * LEVELS ? "" : change > 0 ? ", rising" : ", falling";
    const outside = now[k] > LEVELS ? ", outside the colour range" : "";
    return `${name}, ${data.what} ${this.number(v, false)}${outside}${data.chance}, rank ${rank} of ${measured}${trend}`;
  }

  legend(index) {
    const third = hasRole(this.data, "difference"), first = this.show.value !== "value";
    const rows = [this.ramp(third ? "values " : "", first)];
    if (third || (first && this.panels.length > 1)) rows.push(this.ramp(third ? "difference " : "baseline ", third));
    rows.push(element("span", {}, element("i", { class: "swatch" }), "not measured"));
    if (this.panels.some((panel) => panel.frame.querySelector(".clipped"))) rows.push(element("span", { text: "• outside the colour range" }));
    this.find(".legend").replaceChildren(...rows);
  }

  ramp(text, difference) {
    const { data } = this;
    const palette = difference ? data.differences : data.colors, [lo, hi] = this.range(0, difference);
    const bar = element("span", { class: "ramp", role: "img", "aria-label": `colours from ${this.number(lo, difference)} to ${this.number(hi, difference)}` });
    bar.style.background = `linear-gradient(to right, ${palette.join(",")})`;
    if (!difference && data.chance_frac !== null) {
      const place = (data.chance_frac * LEVELS - lo) / (hi - lo);
      const tick = element("span", { class: "chance", title: "chance" });
      tick.style.left = `${100 * place}%`;
      if (place >= 0 && place <= 1) bar.append(tick);
    }
    const fitted = this.fitted.checked ? " (fitted to the data)" : "";
    const words = element("span", {}, this.number(hi, difference) + fitted + (difference || data.chance_frac === null ? "" : " · line: chance"));
    return element("span", { class: "scale" }, text, this.number(lo, difference), bar, words);
  }

  name(cell) {
    if (cell) cell.title = this.words(cell.panel, cell.at, this.player.index);
  }

  pick(cell) {
    if (!cell) return;
    this.selected = label(Math.floor(cell.at / this.data.heads), cell.at % this.data.heads);
    if (this.player.playing) this.player.toggle();
    this.settle(this.player.index);
    this.tell("head", this.selected);
  }

  open(cell) {
    if (cell) this.tell("open", label(Math.floor(cell.at / this.data.heads), cell.at % this.data.heads));
  }

  key(event) {
    const cell = event.target.closest?.(".cell");
    if (!cell) return;
    const { layers, heads } = this.data;
    let l = Math.floor(cell.at / heads), h = cell.at % heads;
    const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0], Home: [0, -heads], End: [0, heads] };
    if (event.key === "Enter") {
      const chosen = label(l, h) === this.selected;
      chosen ? this.open(cell) : this.pick(cell);
    } else if (event.key === " ") this.player.toggle();
    else if (event.key === "PageDown") this.player.move(this.player.index + 1);
    else if (event.key === "PageUp") this.player.move(this.player.index - 1);
    else if (moves[event.key]) {
      l = Math.max(0, Math.min(layers - 1, l + moves[event.key][0]));
      h = Math.max(0, Math.min(heads - 1, h + moves[event.key][1]));
      this.panels[cell.panel].cells[l * heads + h].focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  let grid = held.get(parentElement);
  if (!grid) {
    grid = new Grid(parentElement, (name, value) => grid.say(name, value));
    held.set(parentElement, grid);
    new ResizeObserver(() => grid.resize()).observe(parentElement.querySelector(".byrote"));
  }
  grid.say = setTriggerValue;
  grid.load(data);
  return () => grid.player.sleep();
}
