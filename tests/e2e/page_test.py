"""The page at the router's root, in a real browser: what operators see, what they are
told when something breaks, and the chat."""

import json
import os
import unittest

import browser
import e2e_case
from local_cluster import LOOPBACK, Cluster, get

READY = "document.getElementById('state')?.textContent === 'ready'"


@unittest.skipUnless(browser.executable(), "no Chromium here")
class Page(e2e_case.TestCase):
    def browser(self, **settings):
        opened = browser.Browser(**settings)
        self.addCleanup(opened.close)
        return opened

    def open(self, cluster, path="/", **settings):
        page = self.browser(**settings)
        page.open(f"http://{LOOPBACK}:{cluster.port}{path}")
        page.wait_for("document.getElementById('chat') !== null")
        return page

    def joined(self, **more):
        """A cluster whose workers join the router, so that it knows who holds what."""
        cluster = Cluster(e2e_case.BINARIES, e2e_case.DEMO, **more)
        join = ["--routers", f"{LOOPBACK}:{cluster.router_grpc_port}"]
        cluster.expert_flags += join
        cluster.attention_flags += join
        return cluster

    def say(self, page, text):
        page.run(f"document.getElementById('say').value = {json.dumps(text)}; "
                 "document.getElementById('send').click()")

    def test_what_an_operator_sees(self):
        with self.joined() as cluster:
            page = self.open(cluster)
            page.wait_for(READY)
            page.wait_for("document.querySelectorAll('#experts tr').length === 3")
            self.assertEqual(page.run("document.getElementById('trouble-list').innerText"),
                             "Nothing.")
            # The map: as many cells as experts, each with its holder.
            page.wait_for("!document.getElementById('map').hidden")
            with open(os.path.join(e2e_case.DEMO, "config.json"), encoding="utf-8") as file:
                config = json.load(file)
            self.assertEqual(page.run("document.getElementById('heat').width"),
                             config["num_experts"])
            page.run("document.getElementById('heat').dispatchEvent(new PointerEvent("
                     "'pointermove', {clientX: 0, clientY: 0}))")
            self.assertIn("held by 127.0.0.1:",
                          page.run("document.getElementById('cell').textContent"))

            self.say(page, "What is the capital of France?")
            page.wait_for("/[1-9]\\d* tokens in/.test(document.getElementById('log')"
                          ".textContent)", 60 * e2e_case.SLOWER)
            page.wait_for("[...document.querySelectorAll('.tile')].some((t) => "
                          "/first token p50/.test(t.textContent) && !/–/.test(t.textContent))")
            # A second question has the first in its context.
            self.say(page, "And of Italy?")
            page.wait_for("(document.getElementById('log').textContent.match(/tokens in/g)"
                          " || []).length === 2", 60 * e2e_case.SLOWER)
            self.assertEqual(page.errors, [])
            if os.environ.get("SWITCHYARD_SCREENSHOTS"):
                page.screenshot(os.path.join(os.environ["SWITCHYARD_SCREENSHOTS"],
                                             "page.png"))
            phone = self.open(cluster, width=390, height=800, mobile=True)
            phone.wait_for(READY)
            self.assertLessEqual(phone.run("document.documentElement.scrollWidth"), 390)
            if os.environ.get("SWITCHYARD_SCREENSHOTS"):
                phone.screenshot(os.path.join(os.environ["SWITCHYARD_SCREENSHOTS"],
                                              "page-phone.png"))

            # What breaks is said in words.
            cluster.experts[1].kill()
            page.wait_for("/have fewer holders|cannot|no holder/i.test("
                          "document.getElementById('trouble-list').textContent)")

    def test_keys(self):
        with Cluster(e2e_case.BINARIES, e2e_case.DEMO, deal=["1/1"],
                     router_flags=["--api-key", "open-sesame"]) as cluster:
            self.assertEqual(get(cluster.port, "/topology")[0], 401)
            page = self.open(cluster)
            page.wait_for(READY)
            self.say(page, "Hi")
            page.wait_for("/API key/.test(document.getElementById('log').textContent)")
            page.run("document.getElementById('key').value = 'open-sesame'; document."
                     "getElementById('key').dispatchEvent(new Event('change'))")
            page.wait_for("document.getElementById('model').textContent === 'demo'")
            self.say(page, "Hi")
            page.wait_for("/tokens in/.test(document.getElementById('log').textContent)",
                          60 * e2e_case.SLOWER)

    def test_nothing_is_loaded_from_elsewhere(self):
        with Cluster(e2e_case.BINARIES, e2e_case.DEMO, deal=["1/1"]) as cluster:
            page = self.open(cluster)
            page.wait_for(READY)
            here = f"http://{LOOPBACK}:{cluster.port}/"
            loaded = page.run("performance.getEntriesByType('resource').map((e) => e.name)")
            self.assertTrue(loaded)
            self.assertEqual([url for url in loaded if not url.startswith(here)], [])


if __name__ == "__main__":
    e2e_case.main()
