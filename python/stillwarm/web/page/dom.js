// Makes and changes elements. Text from the server only ever becomes text: there is no way from here to innerHTML.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

/** An element with properties (`class`, `data-*`, `aria-*` and the like are attributes, `on*` listeners) and children. */
export function el(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svg(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Sets the text when it is another one, so that screen readers and selections are left alone. */
export function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
  return node;
}

/** Makes `parent` hold just `children` in this order, and moves none that is in place already: it would lose the focus. */
export function arrange(parent, children) {
  const wanted = new Set(children);
  for (const child of [...parent.childNodes]) if (!wanted.has(child)) child.remove();
  children.forEach((child, place) => {
    if (parent.childNodes[place] !== child) parent.insertBefore(child, parent.childNodes[place] ?? null);
  });
}

/** Whether the operator is pointing at, or is inside, the element: then nothing may move under the hand. */
export const busy = (node) => node.contains(document.activeElement) || node.matches(":hover");
