// Steps through a series of checkpoints in the browser: play, scrub, jump to events. The server hears of a step only
// when the player comes to rest.
const LEVELS = 65000; // codes up to here are values, then: below the range, above it, and not measured
const BELOW = 65001, ABOVE = 65002, VOID = 65535;
const FRAME_MS = 150;
const REST_MS = 220;

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") made.textContent = value;
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function bytes(text) {
  const raw = atob(text);
  const out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}

// Two bytes each, the lower first.
function shorts(text) {
  const raw = bytes(text), out = new Uint16Array(raw.length / 2);
  for (let i = 0; i < out.length; i++) out[i] = raw[2 * i] | (raw[2 * i + 1] << 8);
  return out;
}

const level = (code) => (code === BELOW ? 0 : code === ABOVE ? LEVELS : code);

class Player {
  // host: element to build into. paint(index, resting) draws; rest(index) reports to the server. Players of one page that
  // belong together are kept at one step by events on their hosts: "byrote-step" says where this one is, "byrote-go" moves it.
  constructor(host, { paint, rest }) {
    this.host = host;
    host.addEventListener("byrote-go", ({ detail }) => this.follow(detail));
    this.paint = paint;
    this.rest = rest;
    this.index = 0;
    this.playing = false;
    this.timer = null;
    this.resting = null;
    this.speed = 1;
    this.play = element("button", { type: "button", class: "play", "aria-pressed": "false", text: "Play" });
    const back = element("button", { type: "button", class: "small", "aria-label": "Previous checkpoint", text: "‹" });
    const on = element("button", { type: "button", class: "small", "aria-label": "Next checkpoint", text: "›" });
    this.range = element("input", { type: "range", min: "0", step: "1", "aria-label": "Checkpoint step" });
    this.ticks = element("div", { class: "ticks", "aria-hidden": "true" });
    this.output = element("output", { class: "now" });
    this.before = element("button", { type: "button", class: "small", text: "‹ event" });
    this.after = element("button", { type: "button", class: "small", text: "event ›" });
    this.before.setAttribute("aria-label", "Previous event");
    this.after.setAttribute("aria-label", "Next event");
    this.pace = element("select", { "aria-label": "Speed" });
    for (const speed of [0.5, 1, 2, 4]) {
      this.pace.append(element("option", { value: String(speed), text: `${speed}×` }));
    }
    this.pace.value = "1";
    const track = element("div", { class: "track" }, this.range, this.ticks);
    this.said = element("p", { class: "events" });
    host.replaceChildren(this.play, back, on, this.before, this.after, this.pace, track, this.output, this.said);
    this.play.onclick = () => this.toggle();
    back.onclick = () => this.move(this.index - 1);
    on.onclick = () => this.move(this.index + 1);
    this.range.oninput = () => this.move(Number(this.range.value));
    this.before.onclick = () => this.event(-1);
    this.after.onclick = () => this.event(1);
    this.pace.onchange = () => {
      this.speed = Number(this.pace.value);
      if (this.playing) this.start();
    };
  }

  // steps: [{label, short, doubt}]; marks: [{index, kind, text}].
  load({ steps, marks, index }) {
    this.steps = steps;
    this.events = marks.filter((mark) => mark.kind === "event").map((mark) => mark.index);
    this.output.style.minWidth = `${Math.max(15, ...steps.map((step) => step.label.length))}ch`; // nothing moves while it plays
    this.range.max = String(Math.max(0, steps.length - 1));
    this.range.disabled = steps.length < 2;
    this.play.disabled = steps.length < 2;
    const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.play.hidden = still;
    this.pace.hidden = still;
    this.before.hidden = this.after.hidden = this.events.length === 0;
    const events = marks.filter((mark) => mark.kind === "event").sort((a, b) => a.index - b.index);
    this.said.textContent = events.map((mark) => `▲ ${steps[mark.index].label.split(" · ")[0]}: ${mark.text}`).join("   ");
    this.said.hidden = !events.length;
    this.ticks.replaceChildren(
      ...marks.map((mark) => {
        const tick = element("span", { class: `tick ${mark.kind}`, title: mark.text });
        const place = steps.length > 1 ? mark.index / (steps.length - 1) : 0;
        tick.style.left = `calc(8px + ${place} * (100% - 16px))`;
        return tick;
      }),
    );
    if (index !== this.reported) {
      // The server moved: a link, the sidebar, the back button.
      this.reported = index;
      if (!this.playing) this.index = index;
    }
    this.index = Math.min(this.index, steps.length - 1);
    if (this.playing) this.start();
    else this.draw(true);
  }

  draw(resting) {
    const step = this.steps[this.index];
    this.range.value = String(this.index);
    this.range.setAttribute("aria-valuetext", step.label);
    this.output.textContent = step.label;
    this.paint(this.index, resting);
    if (!this.following) this.host.dispatchEvent(new CustomEvent("byrote-step", { bubbles: true, composed: true, detail: { index: this.index, resting } }));
  }

  follow({ index, resting }) {
    this.halt();
    this.index = Math.max(0, Math.min(this.steps.length - 1, index));
    this.following = true;
    this.draw(resting);
    this.following = false;
  }

  move(index) {
    this.halt();
    this.index = Math.max(0, Math.min(this.steps.length - 1, index));
    this.draw(true);
    this.tell();
  }

  event(direction) {
    const ahead = this.events.filter((i) => (direction > 0 ? i > this.index : i < this.index));
    if (ahead.length) this.move(direction > 0 ? Math.min(...ahead) : Math.max(...ahead));
  }

  toggle() {
    if (this.playing) {
      this.halt();
      this.draw(true);
      this.tell();
    } else {
      if (this.index >= this.steps.length - 1) this.index = 0;
      this.playing = true;
      this.start();
      this.draw(false);
    }
  }

  start() {
    clearInterval(this.timer);
    this.play.textContent = "Pause";
    this.play.setAttribute("aria-pressed", "true");
    this.timer = setInterval(() => {
      if (this.index >= this.steps.length - 1) return this.toggle();
      this.index += 1;
      this.draw(this.index >= this.steps.length - 1);
    }, FRAME_MS / this.speed);
  }

  halt() {
    clearInterval(this.timer);
    this.timer = null;
    this.playing = false;
    this.play.textContent = "Play";
    this.play.setAttribute("aria-pressed", "false");
  }

  tell() {
    clearTimeout(this.resting);
    this.resting = setTimeout(() => {
      if (this.reported === this.index) return;
      this.reported = this.index;
      this.rest(this.index);
    }, REST_MS);
  }

  // The component leaves the page, or is about to be called again.
  sleep() {
    clearInterval(this.timer);
  }
}
