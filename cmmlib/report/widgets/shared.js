// Small helpers of the widgets. Text from outside enters pages as text only: `element` never parses markup.
const SVG = "http://www.w3.org/2000/svg";

const element = (name, properties = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
};

const drawn = (name, attributes, ...children) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};

// The part of the page around this script: JupyterLab shows the outputs of several cells in one document.
const around = document.currentScript?.parentElement ?? document;
const dataOf = (name) => JSON.parse(around.querySelector(`script.cmm-data-${name}`).textContent);
const percent = (share, digits = 0) => (share === null ? "n/a" : `${(100 * share).toFixed(digits)}\u00a0%`);
const points = (change) => (change === null ? "n/a" : `${change > 0 ? "+" : change < 0 ? "−" : ""}${Math.abs(100 * change).toFixed(1)}`);
const signed = (value, digits = 3) => (value === null ? "n/a" : `${value < 0 ? "−" : ""}${Math.abs(value).toFixed(digits)}`);
const labelled = (text, control) => element("label", {}, element("span", { textContent: text }), control);
