// Elements of the page.

export const byId = (id) => document.getElementById(id);

/** Create an element; strings among its children and its textContent are text, never HTML. */
export function element(name, properties = {}, ...children) {
  const { attributes = {}, ...rest } = properties;
  const created = Object.assign(document.createElement(name), rest);
  for (const [key, value] of Object.entries(attributes)) created.setAttribute(key, value);
  created.append(...children);
  return created;
}
