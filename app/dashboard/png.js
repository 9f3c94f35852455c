// An SVG becomes a PNG of twice its size and is handed over as a download.
const SCALE = 2;
const made = new WeakMap();

export default function ({ data, parentElement }) {
  if (!data || made.get(parentElement) === data.id) return;
  made.set(parentElement, data.id);
  const said = parentElement.querySelector("[role=status]");
  const url = URL.createObjectURL(new Blob([data.svg], { type: "image/svg+xml" }));
  const image = new Image();
  image.onerror = () => { said.textContent = "This browser cannot draw the figure; the SVG holds the same."; };
  image.onload = () => {
    const canvas = document.createElement("canvas");
    canvas.width = SCALE * image.naturalWidth;
    canvas.height = SCALE * image.naturalHeight;
    const brush = canvas.getContext("2d");
    brush.fillStyle = "#ffffff";
    brush.fillRect(0, 0, canvas.width, canvas.height);
    brush.drawImage(image, 0, 0, canvas.width, canvas.height);
    URL.revokeObjectURL(url);
    canvas.toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = data.name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      said.textContent = `Saved as ${data.name}.`;
    }, "image/png");
  };
  image.src = url;
}
