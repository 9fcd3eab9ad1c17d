// What the theme leaves without a name of its own: landmarks of code blocks and of sections whose
// label is hidden, and tables that scroll, which a keyboard must reach.
function label() {
  document.querySelectorAll(".md-code__nav").forEach((nav, number) => {
    nav.setAttribute("aria-label", `Code ${number + 1}`);
  });
  document.querySelectorAll("nav.md-nav[aria-labelledby]").forEach((nav) => {
    const toggle = nav.parentElement.querySelector(":scope > .md-nav__link, :scope > .md-nav__container");
    const name = toggle && toggle.textContent.trim();
    if (name) {
      nav.removeAttribute("aria-labelledby");
      nav.setAttribute("aria-label", `${name}, pages`);
    }
  });
  document.querySelectorAll(".md-typeset__scrollwrap").forEach((table) => {
    table.tabIndex = 0;
  });
}

window.addEventListener("load", () => {
  label();
  new MutationObserver(label).observe(document.querySelector("article"), {
    childList: true,
    subtree: true,
  });
});
