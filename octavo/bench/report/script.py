"""The page's JavaScript: what the pointer rests on is explained, raw data are saved, print shows all."""

from __future__ import annotations

SCRIPT = """
(function () {
  "use strict";
  var tip = document.getElementById("tip");
  document.addEventListener("pointermove", function (event) {
    var mark = event.target.closest ? event.target.closest("[data-tip]") : null;
    if (!mark) { tip.style.display = "none"; return; }
    tip.textContent = mark.getAttribute("data-tip");
    tip.style.display = "block";
    var x = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
    var y = Math.min(event.clientY + 14, window.innerHeight - tip.offsetHeight - 8);
    tip.style.left = x + "px";
    tip.style.top = y + "px";
  });
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (one) { one.open = true; });
  });
  document.querySelectorAll(".save").forEach(function (button) {
    button.addEventListener("click", function () {
      var text = document.getElementById("data").textContent;
      var link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
      link.download = "results.json";
      link.click();
      URL.revokeObjectURL(link.href);
    });
  });
})();
"""
