// What a screen reader or a keyboard needs and the theme or an extension leaves out.
const each = (selector, mend) => document.querySelectorAll(selector).forEach(mend);

document.addEventListener("DOMContentLoaded", () => {
  each("details.hide > summary, .search-button-field", (labelled) => labelled.removeAttribute("aria-label"));
  each("nav summary", (summary) => summary.setAttribute("aria-label", "Show or hide what is inside"));
  each("dt.sig dl", (parameters) => parameters.setAttribute("role", "none"));
  each("[role=list].citation-list", (list) => list.removeAttribute("role"));
  each("summary:has(a)", (summary) => (summary.textContent = "Where the book calls it"));
  // A wide equation scrolls, by keyboard too.
  window.MathJax?.startup?.promise?.then(() => each("mjx-container[display]", (math) => (math.tabIndex = 0)));
});
