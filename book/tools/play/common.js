// What every game begins with: its own output, the data in it, and two ways to make an element.
const root = document.currentScript.parentElement;
const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);

const fill = (element, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};
const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const button = (text, action) => {
  const made = make("button", { type: "button" }, text);
  made.addEventListener("click", action);
  return made;
};
// A reader's program that reads aloud is told when this changes.
const spoken = () => make("p", { "aria-live": "polite" });
// What stood there for readers without scripts makes room.
const show = (...children) => root.replaceChildren(root.querySelector("style"), ...children);
const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "±") + Math.abs(value).toFixed(1);
