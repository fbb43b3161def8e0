// Numbers as text.

export const number = (value) => value.toLocaleString("en");

export const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

/**
 * Return a probability as a percentage with enough digits to tell small ones apart.
 *
 * The digits are those of percent in zsic_index/formats/text.py.
 */
export function percent(probability) {
  const value = probability * 100;
  if (value >= 0.1 || value === 0) return `${oneDecimal(value)}\u00a0%`;
  return value >= 1e-4 ? `${Number(value.toPrecision(1))}\u00a0%` : "<\u00a00.0001\u00a0%";
}

/** Round to one decimal, ties to the even digit as Python does; toFixed rounds them up. */
function oneDecimal(value) {
  return value % 1 === 0.25 ? `${Math.floor(value)}.2` : value.toFixed(1);
}
