import assert from "node:assert/strict";
import { test } from "node:test";

import { escaped, failurePage, graphPage } from "../src/page.ts";

test("text of a program becomes no markup", () => {
  assert.equal(escaped(`<a href="x">'&'</a>`), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;");
  const page = failurePage("<b>.yaml", "</pre><script>alert(1)</script>");
  assert.ok(!page.includes("<script>"));
  assert.ok(page.includes("&lt;b&gt;.yaml"));
});

test("the graph is a picture, and the page may run and load nothing", () => {
  const svg = `<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script><text>ä</text></svg>`;
  const page = graphPage('p".yaml', svg);
  assert.ok(!page.includes("<script>"));
  assert.match(page, /default-src 'none'; img-src data:/);
  const encoded = /base64,([^"]+)"/.exec(page)?.[1] ?? "";
  assert.equal(Buffer.from(encoded, "base64").toString("utf8"), svg);
  assert.ok(page.includes("p&quot;.yaml"));
});
