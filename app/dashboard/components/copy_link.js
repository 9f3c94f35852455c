// Copies the address of the view; where the browser does not let a page write to the clipboard, shows it to be copied by hand.
export default function (component) {
  const { data, parentElement } = component;
  const find = (selector) => parentElement.querySelector(selector);
  find(".live").textContent = "";
  find(".address").value = data.address;
  find(".address").hidden = true;
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
