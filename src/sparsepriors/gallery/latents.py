"""The page of a dictionary's latents: one file, with a box to search in."""

from __future__ import annotations

from math import log1p

from sparsepriors.dictionaries.dashboard import Context, Dashboard, LatentCard
from sparsepriors.gallery._html import Child, Html, el, join
from sparsepriors.gallery._page import page

_LEVELS = 8

_CSS = """
.find{position:sticky;top:0;z-index:1;background:var(--paper);padding:.8rem 0;border-bottom:1px solid var(--line);
display:flex;flex-wrap:wrap;gap:.6rem 1.5rem;align-items:center;font:.875rem var(--sans);color:var(--soft)}
.find input,.find select{font:inherit;color:var(--ink);background:var(--wash);border:1px solid var(--line);
padding:.35rem .6rem;border-radius:3px}.find input{flex:1 1 16rem;min-width:0}
.latent{display:grid;grid-template-columns:minmax(0,15rem) minmax(0,1fr);gap:.5rem 2.5rem;padding:1.75rem 0}
.latent+.latent{margin-top:0}.latent h3{font-size:1.25rem;margin:0 0 .4rem}
.contexts{list-style:none;margin:0;padding:0;font:.8125rem/1.9 var(--mono)}
.contexts li{white-space:pre-wrap;padding:.15rem 0;border-bottom:1px dotted var(--line)}
.contexts b{text-decoration:underline;text-underline-offset:.25em}
.bars{display:block;width:100%;height:3.2rem}.bars rect{fill:var(--accent)}
.bars text{font:9px var(--sans);fill:var(--soft)}
.effects{font:.8125rem/1.6 var(--mono);margin:.5rem 0 0}
.effects span{display:inline-block;margin-right:.9rem;white-space:pre}
@media (max-width:46rem){.latent{grid-template-columns:minmax(0,1fr)}}
""" + "".join(f".c{i}{{background:color-mix(in srgb,var(--accent) {round(70 * i / _LEVELS)}%,transparent)}}\n"
              for i in range(1, _LEVELS + 1))

_SCRIPT = """
"use strict";
const box = document.querySelector("#find"), order = document.querySelector("#order");
const list = document.querySelector("#latents"), shown = document.querySelector("#shown");
const cards = [...list.children];
const text = new Map(cards.map(card => [card, card.textContent.toLowerCase()]));
function find() {
  const words = box.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let count = 0;
  for (const card of cards) {
    const has = w => /^#\\d+$/.test(w) ? card.id === "latent-" + w.slice(1) : text.get(card).includes(w);
    card.hidden = !words.every(has);
    count += !card.hidden;
  }
  shown.textContent = count + " of " + cards.length;
}
function sort() {
  const key = order.value, up = key === "number" ? 1 : -1;
  list.append(...[...cards].sort((a, b) => up * (a.dataset[key] - b.dataset[key])));
}
box.addEventListener("input", find);
order.addEventListener("change", sort);
find();
"""


def latents_page(dashboard: Dashboard, title: str, about: str = "") -> str:
    """A document without a single request that shows every card of a dashboard.

    Parameters
    ----------
    dashboard
        What `dictionaries.dashboard.latent_dashboard` found.
    title
        Of the page.
    about
        A sentence on the dictionary: of which model, read where, trained on what.
    """
    orders = [("number", "number"), ("frequency", "frequency"), ("largest", "largest code")]
    names = list(dashboard.cards[0].notes) if dashboard.cards else []
    orders += [(f"note{i}", name) for i, name in enumerate(names)]
    facts = (f"{len(dashboard.cards):,} latents on {dashboard.tokens:,} tokens; {dashboard.l0:.3g} of all are active "
             f"at a token, {dashboard.dead:.1%} never were.")
    return page(
        title, style=_CSS, script=_SCRIPT,
        heading=[el("h1", title), el("p", about, class_="lead") if about else None, el("p", facts, class_="note")],
        body=[el("div",
                 el("label", "Search", for_="find"),
                 el("input", type="search", id="find", placeholder="words of contexts or effects, or #12",
                    autocomplete="off"),
                 el("label", "Order", for_="order"),
                 el("select", *(el("option", shown, value=value) for value, shown in orders), id="order"),
                 el("span", id="shown", role="status"), class_="find", role="search"),
              el("div", *map(_card, dashboard.cards), id="latents")],
        footer=el("p", "Underlined: the strongest token of a context. Shading: the code relative to the largest. "
                       "Histograms are of codes above zero, both axes logarithmic."))


def _card(card: LatentCard) -> Html:
    facts: list[Child] = [el("dt", "active"), el("dd", f"{card.frequency:.3%}"),
                          el("dt", "largest"), el("dd", f"{card.largest:.3g}")]
    for name, value in card.notes.items():
        facts += [el("dt", name), el("dd", f"{value:.3g}")]
    data = {"data-number": card.latent, "data-frequency": card.frequency, "data-largest": card.largest,
            **{f"data-note{i}": value for i, value in enumerate(card.notes.values())}}
    left = el("div", el("h3", f"Latent {card.latent}"), el("dl", *facts), _bars(card),
              _effects("raises", card.promotes), _effects("lowers", card.suppresses))
    contexts: Child = (el("ul", *(_context(c, card.largest) for c in card.contexts), class_="contexts")
                       if card.contexts else el("p", "Never active on these tokens.", class_="note"))
    return el("article", left, el("div", contexts), class_="latent", id=f"latent-{card.latent}", **data)


def _context(context: Context, largest: float) -> Html:
    pieces: list[Child] = []
    for i, (piece, code) in enumerate(zip(context.pieces, context.codes, strict=True)):
        level = min(_LEVELS, round(_LEVELS * code / largest)) if largest > 0 else 0
        shown = piece.replace("\n", "⏎")
        if i == context.focus:
            pieces.append(el("b", shown, class_=f"c{max(level, 1)}", title=f"{code:.3g}"))
        elif level:
            pieces.append(el("span", shown, class_=f"c{level}", title=f"{code:.3g}"))
        else:
            pieces.append(shown)
    return el("li", *pieces)


def _bars(card: LatentCard) -> Html | None:
    if not card.histogram:
        return None
    top, width = log1p(max(card.histogram)), 240 / len(card.histogram)
    bars = [el("rect", x=f"{i * width:.1f}", y=f"{34 * (1 - log1p(n) / top):.1f}", width=f"{max(width - 1, 1):.1f}",
               height=f"{34 * log1p(n) / top:.1f}") for i, n in enumerate(card.histogram)]
    ends = [el("text", f"{card.edges[0]:.2g}", x="0", y="46"),
            el("text", f"{card.edges[-1]:.2g}", x="240", y="46", text_anchor="end")]
    return el("svg", *bars, *ends, class_="bars", viewBox="0 0 240 48", role="img",
              aria_label=f"codes from {card.edges[0]:.2g} to {card.edges[-1]:.2g}")


def _effects(name: str, effects: list[tuple[str, float]]) -> Html | None:
    if not effects:
        return None
    return el("div", el("span", name, class_="note"), join(el("span", token.replace("\n", "⏎"), title=f"{value:+.3g}")
                                                          for token, value in effects), class_="effects")
