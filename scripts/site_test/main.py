"""Opens the built site in Chromium and checks it: a line a check, exit code 1 if one fails."""

import base64
import functools
import http.server
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

from checks import Checks, without_javascript
from webdriver import Browser, Driver

# A folder's name that an address has to escape, and a path that a web server may put before ours.
ODD, SUB_PATH = "a site, äöü 100%", "some/where"


class Report:
    """Lines of what was checked."""

    def __init__(self):
        self.failed = 0

    def check(self, name, what):
        start = time.monotonic()
        try:
            said = what()
        except Exception as error:  # Whatever a check meets is what is wrong with the site.
            self.failed += 1
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            print(f"FAIL  {name}: {kind}{error}", flush=True)
        else:
            seconds = time.monotonic() - start
            print(f"ok    {name}{f': {said}' if said else ''} ({seconds:.1f} s)", flush=True)


def serve(folder):
    """A web server of a folder, and its address."""
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}/"


def main(program, pictures):
    report = Report()
    shutil.rmtree(pictures, ignore_errors=True)
    pictures.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="site-test-") as temporary:
        site = Path(temporary) / ODD / "site"

        def build():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([program, "publish", "--output", str(site)], check=True, stdout=subprocess.DEVNULL)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            # What it takes of a processor, which is what it takes where nothing else runs.
            seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            assert seconds <= 5, f"takes {seconds:.1f} s"
            return f"{seconds:.1f} s"

        report.check("the site is built in 5 s or less", build)
        served = Path(temporary) / "served" / SUB_PATH
        shutil.copytree(site, served)
        server, address = serve(Path(temporary) / "served")
        driver = Driver()
        try:
            check_all(report, driver, site, f"{address}{SUB_PATH}/", pictures, program)
        finally:
            driver.close()
            server.shutdown()
    print(f"{report.failed} failed; pictures are in {pictures}")
    return 1 if report.failed else 0


def check_all(report, driver, site, address, pictures, program):
    root = f"file://{urllib.parse.quote(str(site))}/"
    browser = Browser(driver)

    def picture(name):
        (pictures / f"{name}.png").write_bytes(base64.b64decode(browser.screenshot()))

    browser.colours("light")
    checks = Checks(browser, root, site, picture)
    report.check("the matrix is 1.5 MB or less and loads in 1 s or less", checks.matrix_is_light)
    report.check("pages have no errors, no nameless pictures, no broken links", checks.pages_are_sound)
    report.check("search leads questions to their answers", checks.search)
    report.check("search is fast", checks.search_is_fast)
    report.check("one search answers who asks at night", checks.one_search_answers)
    report.check("the matrix keeps its filter in the address", checks.matrix_keeps_its_filter)
    report.check("ask answers what the address asks", checks.ask)
    report.check("ask keeps what is asked in the address", checks.ask_keeps_the_address)
    report.check("ask answers every operation and change", checks.ask_every_pair)
    report.check("ask says how sure it is of a kernel", lambda: checks.ask_names_of_kernels(program))
    report.check("the keyboard is enough", checks.keyboard)
    report.check("no page is wider than a phone", checks.narrow)
    report.check("texts can be read in the light", lambda: checks.contrast("light"))
    report.check("texts can be read in the dark", lambda: checks.contrast("dark"))
    report.check("the colours that were chosen are kept", checks.theme_is_kept)
    below = Checks(browser, address, site, lambda name: None)
    report.check("below a path of a web server: search", below.one_search_answers)
    report.check("below a path of a web server: filter", below.matrix_keeps_its_filter)
    report.check("below a path of a web server: ask", below.ask)
    report.check("nothing was said in a console", lambda: console(browser))
    browser.close()
    browser = Browser(driver, javascript=False)
    report.check("without JavaScript everything can be read", lambda: without_javascript(browser, root, picture))
    browser.close()


def console(browser):
    lines = browser.console()
    assert not lines, "; ".join(lines[:5])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
