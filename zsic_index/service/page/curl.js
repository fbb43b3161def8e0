// A request as a command for a shell.

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/**
 * Return the curl command of a request.
 *
 * @param url the address.
 * @param names file names of the images.
 * @param fields pairs of a form field's name and value.
 * @param withToken whether the request needs a token: the command takes it from $TOKEN.
 */
export function curl(url, names, fields, withToken) {
  const files = names.map((name) => `-F ${quoted(`images=@"${name.replace(/["\\]/g, "\\$&")}"`)}`);
  // --form-string: with -F, a value that begins with @ or < would be the name of a file.
  const texts = fields.map(([key, value]) => `--form-string ${quoted(`${key}=${value}`)}`);
  const token = withToken ? ['-H "Authorization: Bearer $TOKEN"'] : [];
  return [`curl ${quoted(url)}`, ...token, ...files, ...texts].join(" \\\n  ");
}
