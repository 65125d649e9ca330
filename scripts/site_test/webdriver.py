"""Chromium by way of chromedriver: the few commands of WebDriver that the checks need.

A library would bring an asynchronous runtime or a package manager into CI for a dozen of requests; these
are plain HTTP with JSON, which Python has built in.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c", "Down": "\ue015", "Up": "\ue013"}


# How many ports are tried.
PORTS = 5


class DriverError(Exception):
    """What chromedriver refused, and why."""


def free_port():
    """A port that was free a moment ago."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(test, what, seconds=60.0):
    """Waits until something is so, and returns it; an error that says what was waited for.

    It is a way out, and judges nobody: on a busy machine a browser stands still for seconds.
    """
    end = time.monotonic() + seconds
    while True:
        found = test()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.02)


class Driver:
    """A chromedriver of our own."""

    def __init__(self):
        program = shutil.which("chromedriver") or "/usr/lib/chromium/chromedriver"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        for _ in range(PORTS):
            self.port = free_port()
            self.process = subprocess.Popen([program, f"--port={self.port}"], **quiet)
            # Who does not get the port, which somebody has taken meanwhile, ends.
            try:
                wait_for(lambda: self.has_ended() or self.is_up(), "chromedriver", 120)
            except AssertionError:
                self.close()
                raise
            if not self.has_ended():
                return
        raise DriverError(f"chromedriver ended {PORTS} times: {self.process.returncode}")

    def has_ended(self):
        return self.process.poll() is not None

    def is_up(self):
        try:
            return self.call("GET", "/status")["ready"]
        except OSError:
            return False

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            value = json.load(error)["value"]
            raise DriverError(f"{path.split('/', 3)[-1]}: {value['message'].splitlines()[0]}") from None

    def close(self):
        self.process.terminate()
        self.process.wait()


class Browser:
    """A browser with a profile of its own."""

    def __init__(self, driver, javascript=True):
        self.driver = driver
        self.profile = tempfile.mkdtemp(prefix="site-test-")
        args = ["--headless=new", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars",
                "--disable-dev-shm-usage", f"--user-data-dir={self.profile}", "--window-size=1200,900"]
        if os.getuid() == 0:
            args.append("--no-sandbox")
        options = {"args": args}
        if not javascript:
            options["prefs"] = {"profile.managed_default_content_settings.javascript": 2}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options,
                  "goog:loggingPrefs": {"browser": "ALL"}}
        answer = driver.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.path = f"/session/{answer['sessionId']}"

    def call(self, method, path, body=None):
        return self.driver.call(method, self.path + path, body)

    def open(self, url):
        """Loads a page anew, even if only what stands behind # is another."""
        self.call("POST", "/url", {"url": "about:blank"})
        self.call("POST", "/url", {"url": url})

    def run(self, script, *args):
        """What a function's body returns, run in the page."""
        return self.call("POST", "/execute/sync", {"script": script, "args": list(args)})

    def cdp(self, command, **params):
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def keys(self, *keys):
        """Presses keys where the focus is: names of KEYS, or text."""
        actions = []
        for key in (c for key in keys for c in ([KEYS[key]] if key in KEYS else key)):
            actions += [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def url(self):
        return self.call("GET", "/url")

    def console(self):
        """Errors and warnings of pages since the last time."""
        lines = self.call("POST", "/se/log", {"type": "browser"})
        return [line["message"] for line in lines if line["level"] in ("SEVERE", "WARNING")]

    def size(self, width, height=900):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def colours(self, scheme):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.cdp("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self, clip=None):
        """A picture of the window, or of a part of the page in its pixels, as base64 of a PNG."""
        if clip is None:
            return self.call("GET", "/screenshot")
        return self.cdp("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)["data"]

    def close(self):
        with contextlib.suppress(DriverError, OSError):
            self.driver.call("DELETE", self.path)
        shutil.rmtree(self.profile, ignore_errors=True)
