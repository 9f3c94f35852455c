// What the theme leaves out for keyboards and screen readers: levels of the navigation's headings, regions that scroll.
document.addEventListener("DOMContentLoaded", () => {
  for (const heading of document.querySelectorAll('[role="heading"]:not([aria-level])')) heading.setAttribute("aria-level", "2");
  document.querySelector(".sidebar-drawer")?.setAttribute("aria-label", "Site");
  document.querySelector(".toc-drawer")?.setAttribute("aria-label", "On this page");
  for (const region of document.querySelectorAll("pre, .table-wrapper")) region.tabIndex = 0;
});
