const held = new WeakMap();
const LARGE = 300;

// Rows look, columns are looked at; what lies above the diagonal is left empty.
class Sheet {
  constructor(root) {
    this.find = (selector) => root.querySelector(selector);
    const pictures = this.find(".pictures"), at = (event) => event.target.closest("[role=option]");
    pictures.addEventListener("mouseover", (event) => at(event) && this.enlarge(at(event).at));
    pictures.addEventListener("mouseleave", () => this.enlarge(this.chosen));
    pictures.addEventListener("focusin", (event) => at(event) && this.enlarge(at(event).at));
    pictures.addEventListener("click", (event) => at(event) && this.pick(at(event).at));
    pictures.addEventListener("keydown", (event) => at(event) && this.key(event, at(event).at));
  }

  load(data) {
    this.data = data;
    this.chosen = Math.max(0, data.names.indexOf(data.selected));
    if (this.drawn !== data.key) {
      this.drawn = data.key;
      this.codes = bytes(data.codes);
      this.tones = data.colors.map((color) => [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16)));
      const n = data.names.length;
      this.find(".pictures").style.setProperty("--picture", `${n <= 8 ? 104 : n <= 32 ? 80 : 60}px`);
      this.options = data.names.map((name, i) => {
        const option = element("div", { role: "option", tabindex: "-1", "aria-label": [name, data.said[i]].filter(Boolean).join(": ") }, element("canvas", {}), element("span", { text: name }));
        option.at = i;
        this.paint(option.firstChild, i);
        return option;
      });
      this.find(".pictures").replaceChildren(...this.options.flatMap((option, i) =>
        data.layers.length && data.layers[i] !== data.layers[i - 1] ? [element("div", { class: "layer", role: "presentation", text: `layer ${data.layers[i]}` }), option] : [option]));
    }
    this.options.forEach((option, i) => {
      option.setAttribute("aria-selected", String(data.names[i] === data.selected));
      option.tabIndex = i === this.chosen ? 0 : -1;
    });
    this.enlarge(this.chosen);
  }

  paint(canvas, at) {
    const { side } = this.data, context = canvas.getContext("2d");
    canvas.width = canvas.height = side;
    const image = context.createImageData(side, side), last = this.tones.length - 1;
    for (let q = 0; q < side; q++) {
      for (let k = 0; k <= q; k++) {
        const place = q * side + k;
        image.data.set([...this.tones[Math.round((this.codes[at * side * side + place] / 255) * last)], 255], 4 * place);
      }
    }
    context.putImageData(image, 0, 0);
  }

  enlarge(at) {
    const { side, names, said, borders } = this.data, canvas = this.find(".large canvas"), small = this.options[at].firstChild;
    canvas.width = canvas.height = LARGE;
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, LARGE, LARGE);
    context.strokeStyle = "rgba(250, 250, 250, .6)";
    for (const border of borders) {
      const place = (border / side) * LARGE;
      context.beginPath();
      context.moveTo(0, place);
      context.lineTo(place, place);
      context.lineTo(place, LARGE);
      context.stroke();
    }
    this.find(".large figcaption").textContent = [names[at], said[at]].filter(Boolean).join(": ");
    this.find(".live").textContent = `Point at a picture to enlarge it; select it to open the head.`;
  }

  pick(at) {
    this.say(this.data.names[at]);
  }

  key(event, at) {
    const last = this.options.length - 1;
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: last }[event.key];
    if (event.key === "Enter" || event.key === " ") this.pick(at);
    else if (to !== undefined) {
      const next = Math.max(0, Math.min(last, to));
      this.options.forEach((option, i) => { option.tabIndex = i === next ? 0 : -1; });
      this.options[next].focus();
    } else return;
    event.preventDefault();
  }
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  let sheet = held.get(parentElement);
  if (!sheet) held.set(parentElement, (sheet = new Sheet(parentElement)));
  sheet.say = (head) => setTriggerValue("head", head);
  sheet.load(data);
}
