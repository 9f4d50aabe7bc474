"""The pages' one style sheet and their one script, both inlined."""

from __future__ import annotations

CSS = """
:root{color-scheme:light dark;--paper:#fdfcfa;--ink:#22262b;--soft:#5f666e;--line:#e2dfd8;--wash:#f5f3ee;
--accent:#0d5f73;--bad:#a2402c;--serif:Charter,"Bitstream Charter","Iowan Old Style",Cambria,Georgia,serif;
--sans:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
@media (prefers-color-scheme:dark){:root{--paper:#14181b;--ink:#dfe2e4;--soft:#98a1a8;--line:#2d3439;--wash:#1b2125;
--accent:#7cc0d2;--bad:#e2907c}}
*{box-sizing:border-box}
[hidden]{display:none!important}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0;background:var(--paper);color:var(--ink);font:1.0625rem/1.6 var(--serif);overflow-wrap:break-word}
main,header.top,footer{max-width:68rem;margin:0 auto;padding:0 1.5rem}
header.top{padding-top:4.5rem}
h1{font-size:2.5rem;line-height:1.15;font-weight:400;letter-spacing:-.015em;margin:0 0 1rem;text-wrap:balance}
h2{font:600 .8125rem/1.4 var(--sans);letter-spacing:.09em;text-transform:uppercase;color:var(--accent);
margin:5rem 0 0;padding-bottom:.6rem;border-bottom:1px solid var(--line)}
h3{font-size:1.625rem;line-height:1.25;font-weight:400;margin:0 0 .5rem;text-wrap:balance;letter-spacing:-.01em}
h4{font:600 .9375rem/1.4 var(--sans);margin:2.5rem 0 .75rem}
p{margin:0 0 1rem;max-width:42rem}
.lead{font-size:1.1875rem;max-width:44rem}
.by,.note,figcaption,.why,summary,dl,.count{font:.875rem/1.55 var(--sans);color:var(--soft)}
a{color:var(--accent);text-decoration-thickness:1px;text-underline-offset:.18em}
a:focus-visible,summary:focus-visible,button:focus-visible,.scroll:focus-visible,input:focus-visible
{outline:2px solid var(--accent);outline-offset:3px}
article{padding-top:2.75rem}
article+article{margin-top:3.5rem;border-top:1px solid var(--line)}
.intro{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,21rem);gap:0 3.5rem;align-items:start}
ol.method{margin:1.25rem 0 0;padding-left:1.35rem;max-width:42rem}
ol.method li{padding-left:.25rem;margin:.15rem 0}
ol.method li::marker{color:var(--soft);font:.8125rem var(--sans)}
code{font:.875em var(--mono)}
pre{margin:0 0 1.25rem;padding:.7rem .9rem;background:var(--wash);border-left:2px solid var(--accent);
font:.8125rem/1.5 var(--mono);overflow-x:auto;white-space:pre-wrap}
dl{display:grid;grid-template-columns:auto minmax(0,1fr);gap:.2rem 1rem;margin:0}
dt{color:var(--soft)}dd{margin:0;color:var(--ink)}
table{border-collapse:collapse;width:100%;font:.875rem/1.5 var(--sans);font-variant-numeric:tabular-nums}
th{font-weight:500;color:var(--soft);text-align:left;vertical-align:bottom;padding:.45rem 1rem .45rem 0;
border-bottom:1px solid var(--ink)}
td{vertical-align:top;padding:.7rem 1rem .7rem 0;border-bottom:1px solid var(--line)}
th:last-child,td:last-child{padding-right:0}
td.n,th.n{text-align:right;white-space:nowrap}
.claims td{padding-top:.95rem;padding-bottom:.95rem}
.claims .text{font:1rem/1.45 var(--serif);display:block;margin-bottom:.25rem}
.value{white-space:nowrap}.of{display:block;color:var(--soft);font-size:.8125rem}
.chip{display:inline-block;font:500 .8125rem/1.4 var(--sans);padding:.05rem .55rem;border:1px solid;border-radius:1rem;
white-space:nowrap}
.chip.held{color:var(--accent)}.chip.nothel{color:var(--bad)}.chip.inconc,.chip.failed{color:var(--soft)}
.chip.failed{color:var(--bad)}
.dots{white-space:nowrap;letter-spacing:.15em;font-size:.9375rem}
.dots .held{color:var(--accent)}.dots .nothel{color:var(--bad)}.dots .inconc{color:var(--soft)}
svg.forest{display:block;width:11rem;height:2.5rem;overflow:visible}
.claims td:first-child{width:32%}
.forest .axis{stroke:var(--line)}.forest .zero{stroke:var(--soft)}.forest .goal{stroke:var(--soft);stroke-dasharray:2 2}
.forest .bar{stroke:var(--accent);stroke-width:2}.forest .dot{fill:var(--accent)}
.forest .nothel.bar{stroke:var(--bad)}.forest .nothel.dot{fill:var(--bad)}
.forest .inconc.bar{stroke:var(--soft)}.forest .inconc.dot{fill:var(--soft)}
.forest text{font:9.5px var(--sans);fill:var(--soft)}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:2.25rem 2rem;margin:2rem 0}
figure{margin:0;min-width:0}
figure.wide{grid-column:1/-1}
figure img{display:block;width:100%;height:auto;background:#fff;border-radius:2px}
@media (prefers-color-scheme:dark){figure img{filter:brightness(.92)}}
figcaption{margin-top:.6rem;max-width:44rem}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
details{margin:1rem 0}
summary{cursor:pointer;padding:.35rem 0;color:var(--accent)}
details td,details th{padding:.3rem 1rem .3rem 0}
details .scroll+.scroll,details .note{margin-top:1.25rem}
th button{all:unset;cursor:pointer;color:inherit}
th[aria-sort=ascending] button::after{content:" \\2191"}th[aria-sort=descending] button::after{content:" \\2193"}
.filter{border:0;padding:0;font:.875rem var(--sans);display:flex;flex-wrap:wrap;gap:.4rem 1.25rem;margin:0 0 1rem;
  color:var(--soft)}
.filter legend{float:left;margin-right:1.25rem;padding:0}
.filter input{accent-color:var(--accent);margin:0 .35rem 0 0}
.error{border-left:2px solid var(--bad);padding:.6rem .9rem;background:var(--wash);font:.875rem/1.5 var(--sans)}
footer{padding-top:3rem;padding-bottom:4rem;margin-top:5rem;border-top:1px solid var(--line)}
footer p{font:.875rem/1.55 var(--sans);color:var(--soft)}
@media (max-width:46rem){
body{font-size:1rem}main,header.top,footer{padding-left:1.125rem;padding-right:1.125rem}
header.top{padding-top:2.5rem}h1{font-size:1.875rem}h2{margin-top:3.5rem}h3{font-size:1.375rem}
.intro{grid-template-columns:minmax(0,1fr)}.intro aside{margin-top:1.5rem}
.stack,.stack tbody,.stack tr,.stack td{display:block;width:auto}.stack thead{display:none}
.stack tr{padding:1.1rem 0;border-bottom:1px solid var(--line)}
.stack td,.claims td:first-child{border:0;padding:.2rem 0;width:auto;white-space:normal;text-align:left}
.stack td.n{text-align:left}
.stack td[data-label]::before{content:attr(data-label);display:inline-block;min-width:6.5rem;color:var(--soft)}
.stack .of{display:inline;margin-left:.35rem}.stack .value{white-space:normal}
svg.forest{display:inline-block;vertical-align:middle}
figure.wide .scroll img{min-width:46rem}}
@media print{body{background:#fff;color:#000;font-size:10pt}.filter{display:none}article{break-inside:avoid-page}}
"""

SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("th[aria-sort]").forEach(h => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const x = key(a), y = key(b), numbers = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
        const order = numbers ? x - y : x < y ? -1 : +(x > y);
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows);
    });
  });
}
const filter = document.querySelector(".filter");
if (filter) {
  filter.hidden = false;
  filter.addEventListener("change", () => {
    const shown = new Set([...filter.querySelectorAll("input:checked")].map(box => box.value));
    document.querySelectorAll("tr[data-verdict]").forEach(row => { row.hidden = !shown.has(row.dataset.verdict); });
  });
}
"""
