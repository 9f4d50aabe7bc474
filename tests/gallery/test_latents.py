"""The page of latents: whole, inert, and searchable in a real browser where there is one."""

import re
import shutil
import subprocess

import pytest

from sparsepriors.dictionaries.dashboard import Context, Dashboard, LatentCard
from sparsepriors.gallery import latents_page

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def card(latent, words, frequency=0.1, largest=2.0):
    contexts = [Context(words, [largest if i == 1 else 0.3 for i in range(len(words))], 1)] if words else []
    return LatentCard(latent, frequency, largest, [0.5, 1.0, 2.0], [30, 2], contexts, [("cat", 0.4)], [("dog", -0.2)],
                      {"delta": 0.5 + latent / 100})


def shown(cards):
    return latents_page(Dashboard(cards, 1000, 3.2, 0.25), "Latents of a test", "Read <somewhere>.")


def test_the_page_asks_for_nothing_and_text_stays_text():
    page = shown([card(3, ["<script>", "alert(1)", "\n"]), card(4, [])])
    assert not re.search(r"https?://|<link|@import|url\(", page)
    assert "<script>alert" not in page
    assert page.count("<script>") == 1
    assert "&lt;script&gt;" in page
    assert "Read &lt;somewhere&gt;." in page
    assert "⏎" in page
    assert "Never active" in page
    assert page.count('<article class="latent"') == 2
    assert "25.0% never were" in page


def test_a_page_of_nothing_is_a_page():
    assert "0 latents" in shown([])


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_search_and_order_work_in_a_browser(tmp_path):
    cards = [card(1, ["the", "cat", "sat"], 0.3), card(2, ["a", "dog"], 0.1), card(3, ["one", "catfish"], 0.7)]
    script = """
addEventListener("load", () => {
  box.value = "sat"; box.dispatchEvent(new Event("input"));
  const found = cards.filter(c => !c.hidden).map(c => c.id).join(",") + ";" + shown.textContent;
  box.value = "#2"; box.dispatchEvent(new Event("input"));
  const one = cards.filter(c => !c.hidden).map(c => c.id).join(",");
  box.value = ""; box.dispatchEvent(new Event("input"));
  order.value = "frequency"; order.dispatchEvent(new Event("change"));
  document.title = [found, one, [...list.children].map(c => c.id).join(",")].join("|");
});
"""
    # The policy of the page refuses a second script: the test takes the policy out and puts its own script behind.
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", shown(cards))
    file = tmp_path / "latents.html"
    file.write_text(page.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    done = subprocess.run([str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/u",
                           "--dump-dom", file.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None
    assert title[1] == ("latent-1;1 of 3|latent-2|latent-3,latent-1,latent-2")
