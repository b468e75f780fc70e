// Draws node trees: [tag, attributes, ...children]. Strings are only ever set as text; nothing is parsed.
// Attributes: c class, t tooltip, k key, go where a click leads, bar [left, width] of 1, i indent, o open, s scroll here.

const TAGS = new Set([
  "div", "span", "b", "p", "h1", "h2", "h3", "pre", "a", "button", "details", "summary",
  "table", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "ol", "li",
]);
const drawn = new WeakMap(); // element -> { text: its node as JSON, tag, key }
const contexts = new WeakMap(); // parent element -> { root, here }

function address(go) {
  const query = new URLSearchParams();
  for (const name of Object.keys(go)) for (const value of [go[name]].flat()) query.append(name, String(value));
  const text = query.toString();
  return document.baseURI.replace(/[?#].*$/, "") + (text ? "?" + text : "");
}

// Follows a link without loading the application anew: the address changes, and Streamlit is told as the browser tells
// it when a reader goes back or forward.
function follow(go) {
  const before = new URLSearchParams(location.search).get("run");
  history.pushState(null, "", address(go));
  window.dispatchEvent(new PopStateEvent("popstate"));
  if (before !== (go.run ?? null)) document.querySelector("[data-testid=stMain]")?.scrollTo(0, 0);
}

function remember(element, node) {
  drawn.set(element, { text: JSON.stringify(node), tag: node[0], key: node[1].k });
}

function create(node) {
  if (typeof node === "string") return document.createTextNode(node);
  const [tag, attributes, ...children] = node;
  if (!TAGS.has(tag)) throw new Error("not a tag of a node tree");
  const element = document.createElement(tag);
  dress(element, attributes);
  if (attributes.o) element.open = true;
  element.append(...children.map((child) => create(child)));
  remember(element, node);
  return element;
}

function dress(element, attributes) {
  element.className = attributes.c ?? "";
  if (attributes.t) element.title = attributes.t;
  else element.removeAttribute("title");
  element.style.cssText = "";
  if (attributes.i) element.style.setProperty("--indent", String(Number(attributes.i)));
  if (attributes.bar) {
    element.style.left = Number(attributes.bar[0]) * 100 + "%";
    element.style.width = Number(attributes.bar[1]) * 100 + "%";
  }
  element.toggleAttribute("data-here", Boolean(attributes.s));
  const link = element.tagName === "A";
  if (link && attributes.go) element.href = address(attributes.go);
  element.onclick = attributes.go ? (event) => click(event, element, attributes.go) : null;
}

function click(event, element, go) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
  const control = element.tagName === "A" || element.tagName === "BUTTON";
  if (!control && String(window.getSelection())) return; // selecting text in a row is not clicking it
  event.preventDefault();
  follow(go);
}

// Changes only what differs, so that a reader's selection, scroll position and opened details survive an update.
function update(element, node) {
  const known = drawn.get(element);
  if (!known || known.tag !== node[0] || known.key !== node[1].k) {
    const fresh = create(node);
    element.replaceWith(fresh);
    return fresh;
  }
  if (known.text === JSON.stringify(node)) return element;
  const [, attributes, ...children] = node;
  dress(element, attributes);
  const keyed = new Map();
  for (const child of element.childNodes) {
    const key = drawn.get(child)?.key;
    if (key) keyed.set(key, child);
  }
  children.forEach((child, place) => {
    const there = element.childNodes[place] ?? null;
    const key = typeof child === "string" ? undefined : child[1].k;
    const match = key ? keyed.get(key) : there && !drawn.get(there)?.key ? there : null;
    if (!match) {
      element.insertBefore(create(child), there);
      return;
    }
    if (match !== there) element.insertBefore(match, there);
    if (typeof child === "string") {
      if (match.nodeType !== Node.TEXT_NODE) match.replaceWith(create(child));
      else if (match.data !== child) match.data = child;
    } else if (match.nodeType === Node.TEXT_NODE) match.replaceWith(create(child));
    else update(match, child);
  });
  while (element.childNodes.length > children.length) element.lastChild.remove();
  remember(element, node);
  return element;
}

// Only inside its own scrolling box, and only when the place changed: the page itself never jumps.
function reveal(context) {
  const here = context.root.querySelector("[data-here]");
  if (here === context.here) return;
  context.here = here;
  const box = here?.closest(".scroll");
  if (!box) return;
  const top = here.getBoundingClientRect().top - box.getBoundingClientRect().top + box.scrollTop;
  const outside = top < box.scrollTop + 30 || top + here.offsetHeight > box.scrollTop + box.clientHeight;
  if (outside) box.scrollTop = Math.max(0, top - box.clientHeight / 3);
}

export default function ({ data, parentElement }) {
  let context = contexts.get(parentElement);
  if (!context) {
    context = { root: null, here: null };
    contexts.set(parentElement, context);
  }
  if (context.root?.isConnected) context.root = update(context.root, data.tree);
  else {
    context.root = create(data.tree);
    parentElement.appendChild(context.root);
  }
  reveal(context);
}
