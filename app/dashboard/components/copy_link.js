const SMALLEST = 0.68; // of its size: below it letters can't be read, and a figure scrolls by itself
const watched = new WeakSet(), FIGURE = '[class*="st-key-figure_"]';
// What is at the end of every page also sees to it that a figure whose least width the page does not have is drawn smaller.
// A transform, because Plotly finds what a pointer is at through one.
const fit = (figure) => {
  const drawn = figure.firstElementChild;
  if (!drawn) return;
  const share = Math.max(SMALLEST, figure.clientWidth / (parseFloat(getComputedStyle(drawn).minWidth) || 1));
  figure.style.setProperty("--shrunk", share < 1 ? `scale(${share})` : "none");
  figure.style.marginBottom = share < 1 ? `${Math.round((share - 1) * drawn.offsetHeight)}px` : "";
};
const watchFigures = (page) => {
  if (watched.has(page)) return;
  watched.add(page);
  const look = () => page.querySelectorAll(FIGURE).forEach((figure) => {
    if (watched.has(figure) || !figure.firstElementChild) return;
    watched.add(figure);
    const sizes = new ResizeObserver(() => fit(figure));
    sizes.observe(figure);
    sizes.observe(figure.firstElementChild);
  });
  new MutationObserver(look).observe(page.body, { childList: true, subtree: true });
  look();
};

// Copies the address of the view; where the browser does not let a page write to the clipboard, shows it to be copied by hand.
export default function (component) {
  const { data, parentElement } = component;
  watchFigures(parentElement.ownerDocument);
  const find = (selector) => parentElement.querySelector(selector);
  if (find(".address").value !== data.address) { // the same view drawn again leaves what was just reported
    find(".live").textContent = "";
    find(".address").value = data.address;
    find(".address").hidden = true;
  }
  find(".copy").onclick = async () => {
    try {
      await navigator.clipboard.writeText(data.address);
      find(".live").textContent = "Copied";
    } catch {
      find(".address").hidden = false;
      find(".address").select();
      find(".live").textContent = "Press Ctrl-C to copy";
    }
  };
}
