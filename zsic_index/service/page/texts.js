// Numbers and names as they are shown, and elements to show them in.

export const at = (id) => document.getElementById(id);

/** Make an element; what it says is text, never HTML. */
export function element(name, properties = {}, ...children) {
  const { attributes = {}, ...rest } = properties;
  const made = Object.assign(document.createElement(name), rest);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export const number = (value) => value.toLocaleString("en");

export const plural = (count, what) => `${number(count)} ${what}${count === 1 ? "" : "s"}`;

/** A probability as the command line writes it, with enough digits to tell small ones apart. */
export function percent(probability) {
  const value = probability * 100;
  if (value >= 0.1 || value === 0) return `${value.toFixed(1)}\u00a0%`;
  return value >= 1e-4 ? `${Number(value.toPrecision(1))}\u00a0%` : "<\u00a00.0001\u00a0%";
}

const inQuotes = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** The request as a command for a shell; a token is left to be filled in. */
export function curl(url, names, fields, withToken) {
  const files = names.map((name) => `-F ${inQuotes(`images=@"${name.replace(/["\\]/g, "\\$&")}"`)}`);
  // --form-string: a text that begins with @ or < is no file's name.
  const texts = fields.map(([key, value]) => `--form-string ${inQuotes(`${key}=${value}`)}`);
  const token = withToken ? ['-H "Authorization: Bearer $TOKEN"'] : [];
  return [`curl ${inQuotes(url)}`, ...token, ...files, ...texts].join(" \\\n  ");
}

/** Wait with an action until nothing has happened for a while. */
export function settled(action, milliseconds) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, milliseconds);
  };
}
