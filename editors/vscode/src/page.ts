// The page that shows a graph: it may run nothing and load nothing. What the server draws is SVG of
// its own making, in which every text of the program is escaped; the page does not rely on it.

const ESCAPES: Record<string, string> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

export function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (char) => ESCAPES[char] ?? char);
}

export function graphPage(title: string, svg: string): string {
  const source = Buffer.from(svg, "utf8").toString("base64");
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>${escaped(title)}</title>
<style>body { background: white; padding: 1em } img { max-width: 100% }</style>
</head>
<body><img alt="The graph of ${escaped(title)}" src="data:image/svg+xml;base64,${source}"></body>
</html>
`;
}

export function failurePage(title: string, message: string): string {
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'">
<title>${escaped(title)}</title>
</head>
<body><p>${escaped(title)} cannot be drawn:</p><pre>${escaped(message)}</pre></body>
</html>
`;
}
