// Numbers for people: two significant parts, and never a zero for what is none.

export function duration(ms: number): string {
  const sign = ms < 0 ? "-" : "";
  const size = Math.abs(ms);
  if (size < 0.0005) return "0 ms";
  if (size < 1) return `${sign}${significant(size, 2)} ms`;
  if (size < 999.5) return `${sign}${Math.round(size)} ms`;
  if (size < 59_950) return `${sign}${significant(size / 1000, size < 9_950 ? 2 : 3)} s`;
  const seconds = Math.round(size / 1000);
  const parts: [number, string][] = [
    [Math.floor(seconds / 86_400), "d"],
    [Math.floor(seconds / 3_600) % 24, "h"],
    [Math.floor(seconds / 60) % 60, "m"],
    [seconds % 60, "s"],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  const two = parts.slice(first, first + 2).filter(([count]) => count > 0);
  return sign + two.map(([count, unit]) => `${count} ${unit}`).join(" ");
}

/** A price in dollars, given as a decimal: two significant digits below a cent, cents above. */
export function cost(usd: string | null | undefined): string {
  if (usd === null || usd === undefined) return "no price";
  const amount = Number(usd);
  if (amount === 0) return "$0";
  if (amount >= 0.995) return `$${amount.toFixed(2)}`;
  return `$${significant(amount, 2)}`;
}

export function tokens(count: number): string {
  if (count < 10_000) return `${count} tok`;
  return `${significant(count / 1000, 3)}k tok`;
}

export function plural(count: number, word: string): string {
  const ending = /(s|x|ch|sh)$/.test(word) ? "es" : "s";
  return `${count} ${word}${count === 1 ? "" : ending}`;
}

/** Without an exponent, however small. */
function significant(value: number, digits: number): string {
  if (value === 0) return "0";
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(value)));
  const text = value.toFixed(Math.min(places, 20));
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/** A time in the reader's zone. */
export function moment(ms: number): string {
  return new Date(ms).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}
