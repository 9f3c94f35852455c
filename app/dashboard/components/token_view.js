const held = new WeakMap();
const MANY = 0.005; // attention below this is not named

// Spaces and line ends made visible; everything else as it is, as text and never as markup.
const visible = (text) => text.replaceAll(" ", "·").replaceAll("\n", "↵").replaceAll("\t", "⇥") || "∅";

class Tokens {
  constructor(root) {
    this.bar = root.querySelector(".bar");
    this.player = new Player(this.bar, { paint: (index) => this.frame(index), rest: (index) => this.tell("step", this.data.over.steps[index]) });
    this.strip = root.querySelector(".tokens");
    this.live = root.querySelector(".live");
    this.legend = root.querySelector(".legend");
    this.strip.addEventListener("mouseover", (event) => this.look(event.target.closest("button")));
    this.strip.addEventListener("mouseleave", () => this.lock === null && this.show(this.rest));
    this.strip.addEventListener("focusin", (event) => this.look(event.target.closest("button")));
    this.strip.addEventListener("click", (event) => this.toggle(event.target.closest("button")));
    this.strip.addEventListener("keydown", (event) => this.key(event));
  }

  load(data) {
    if (this.drawn !== data.key) {
      this.drawn = data.key;
      this.buttons = data.tokens.map((token, i) => {
        const button = element("button", { type: "button", tabindex: "-1" }, element("span", { text: data.masked ? "•••" : visible(token) }), element("span", { class: "bar" }));
        button.at = i;
        button.classList.toggle("hidden", data.masked);
        return button;
      });
      const starts = data.starts || [];
      const block = (i) => element("span", { class: "block", "aria-hidden": "true", text: `block ${starts.indexOf(i) + 1}` });
      this.strip.replaceChildren(...this.buttons.flatMap((button, i) => (starts.includes(i) ? [block(i), button] : [button])));
    }
    this.data = data;
    this.codes = bytes(data.codes);
    this.targets = (data.targets || []).map((keys) => new Set(keys));
    this.rest = data.rest ?? null; // what is shown while no token is pointed at
    this.lock = Number.isInteger(data.lock) && data.lock < data.tokens.length ? data.lock : null;
    this.tab(this.lock ?? this.rest ?? Math.max(0, this.buttons.findIndex((b) => b.tabIndex === 0)));
    this.show(this.lock ?? this.rest);
    this.bar.hidden = !data.over;
    if (data.over) this.player.load({ steps: data.over.labels.map((label) => ({ label })), marks: [], index: data.over.index });
  }

  // The attention at another step, of the token that is shown.
  frame(index) {
    this.codes = bytes(this.data.over.codes[index]);
    this.show(this.at);
  }

  tab(at) {
    this.buttons.forEach((button, i) => { button.tabIndex = i === at ? 0 : -1; });
  }

  // Attention between a query and a key, 0-1; without position 0 the row's rest is stretched to 1.
  weight(query, key) {
    const n = this.buttons.length, value = this.codes[query * n + key] / 255;
    if (!this.data.skip_first) return value;
    const rest = 1 - this.codes[query * n] / 255;
    return key === 0 || rest < 0.02 ? 0 : Math.min(1, value / rest);
  }

  look(button) {
    if (button && this.lock === null) this.show(button.at);
  }

  toggle(button) {
    if (!button) return;
    this.lock = this.lock === button.at ? null : button.at;
    this.tab(button.at);
    this.show(this.lock ?? button.at);
    this.tell("q", this.lock === null ? -1 : this.lock);
  }

  key(event) {
    const at = event.target.closest?.("button")?.at;
    if (at === undefined) return;
    const last = this.buttons.length - 1;
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: last }[event.key];
    if (event.key === "Escape" && this.lock !== null) this.toggle(this.buttons[this.lock]);
    else if (to !== undefined) {
      const next = Math.max(0, Math.min(last, to));
      this.tab(next);
      this.buttons[next].focus();
    } else return;
    event.preventDefault();
  }

  name(i) {
    return `${this.data.masked ? "•••" : visible(this.data.tokens[i])} (${i})`;
  }

  show(at) {
    this.at = at;
    const outward = this.data.direction === "to";
    this.buttons.forEach((button, i) => {
      const value = at === null ? 0 : outward ? this.weight(at, i) : this.weight(i, at);
      button.classList.toggle("from", i === at);
      button.classList.toggle("locked", i === this.lock);
      button.classList.toggle("target", at !== null && Boolean(outward ? this.targets[at]?.has(i) : this.targets[i]?.has(at)));
      button.classList.toggle("out", at !== null && (outward ? i > at : i < at));
      button.style.background = value > MANY ? `color-mix(in srgb, var(--st-primary-color) ${Math.round(56 * value)}%, transparent)` : "";
      button.querySelector(".bar").style.transform = `scaleX(${value > MANY ? value : 0})`;
      button.setAttribute("aria-pressed", String(i === this.lock));
      button.setAttribute("aria-label", at === null || i === at ? this.name(i) : `${this.name(i)} ${Math.round(100 * value)}%`);
      button.title = at === null ? this.name(i) : `${this.name(outward ? at : i)} → ${this.name(outward ? i : at)}: ${(100 * value).toFixed(1)}%`;
    });
    this.legend.textContent = !this.targets.some((keys) => keys.size) ? "" : outward
      ? "Dashed outline: the token after an earlier copy, where an induction head looks."
      : "Dashed outline: tokens whose earlier copy this one follows; an induction head looks here from them.";
    this.live.textContent = at === null ? "Point at a token to see its attention; select it to lock it." : this.words(at, outward);
  }

  words(at, outward) {
    const named = this.buttons.map((_, i) => [outward ? this.weight(at, i) : this.weight(i, at), i])
      .filter(([value]) => value > MANY).sort((a, b) => b[0] - a[0]).slice(0, 4)
      .map(([value, i]) => `${this.name(i)} ${Math.round(100 * value)}%`);
    const verb = outward ? "attends to" : "is attended to by";
    const keys = outward ? [...(this.targets[at] || [])] : [];
    const on = Math.round(100 * keys.reduce((sum, key) => sum + this.weight(at, key), 0));
    const expected = keys.length ? `; on the token after the earlier copy: ${on}%` : "";
    return `${this.name(at)} ${verb} ${named.join(", ") || "nothing"}${expected}${this.lock === at ? " (locked)" : ""}`;
  }
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  let tokens = held.get(parentElement);
  if (!tokens) held.set(parentElement, (tokens = new Tokens(parentElement)));
  tokens.tell = setTriggerValue;
  tokens.load(data);
  return () => tokens.player.sleep();
}
