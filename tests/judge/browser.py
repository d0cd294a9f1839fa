"""A headless Chromium, driven through two pipes by its DevTools protocol: JSON messages, each ended by a zero byte."""

import base64
import fcntl
import io
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
from PIL import Image

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --mute-audio --remote-debugging-pipe"
).split()


def find_chromium():
    """The path of Chromium or Chrome, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One page of a browser of its own, whose profile is in `profile`; close() ends it."""

    def __init__(self, path, profile):
        (reads, commands), (answers, writes) = os.pipe(), os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (reads, writes)]  # which it has as 3 and 4
        shell = f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}'
        command = ["bash", "-c", shell, "bash", path, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(command, pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for end in (reads, writes, *ends):
            os.close(end)
        self.commands, self.answers = os.fdopen(commands, "wb", buffering=0), os.fdopen(answers, "rb", buffering=0)
        self.rest, self.count, self.session, self.errors = b"", 0, None, []
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self):
        try:
            self.session = None
            self.call("Browser.close")
            self.process.wait(20)
        except (OSError, AssertionError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.commands.close()
        self.answers.close()

    def call(self, method, **params):
        """What a command answers; errors that the page tells meanwhile are kept."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.commands.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            self.note(answer)
            if answer.get("id") == self.count:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def receive(self):
        while b"\0" not in self.rest:
            data = os.read(self.answers.fileno(), 1 << 16)
            assert data, "the browser has ended"
            self.rest += data
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def note(self, answer):
        """Keep what a page says that nobody should read on its console."""
        params = answer.get("params", {})
        if answer.get("method") == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"].get("exception", {}).get("description", str(params)))
        elif answer.get("method") == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif answer.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(str(params["args"]))

    def open(self, path, width=1400, height=900, scheme="light"):
        """Open a file at a size of the window, and wait until its scripts have run; films may still be on their way."""
        self.errors.clear()
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=Path(path).resolve().as_uri() if "://" not in str(path) else str(path))
        self.until("location.href != 'about:blank' && document.readyState != 'loading'")

    def js(self, expression):
        """The value of an expression in the page, which may be a promise."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression, seconds=60):
        """Wait until an expression is true."""
        end = time.time() + seconds
        while not (value := self.js(expression)):
            assert time.time() < end, f"not true after {seconds} s: {expression}"
            time.sleep(0.05)
        return value

    def key(self, name):
        """Press and release a key."""
        codes = {"ArrowLeft": 37, "ArrowRight": 39, "Enter": 13, "Escape": 27, "Backspace": 8, " ": 32}
        text = {"Enter": "\r"}.get(name, name if len(name) == 1 else "")
        keys = {"key": name, "windowsVirtualKeyCode": codes.get(name, ord(name.upper()) if len(name) == 1 else 0)}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **keys)
        self.call("Input.dispatchKeyEvent", type="keyUp", **keys)

    def click(self, selector):
        """Click in the middle of the first element that a selector finds, which is scrolled into sight."""
        x, y = self.js(f"""(() => {{
            const each = document.querySelector({json.dumps(selector)});
            each.scrollIntoView({{block: "center", behavior: "instant"}});
            const box = each.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()""")
        self.mouse("mouseMoved", x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", clickCount=1)

    def mouse(self, kind, x, y, **more):
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def memory(self):
        """MB of the process that shows the page, without what it shares with others (Linux)."""
        most, processes = 0, [self.process.pid]
        for process in processes:
            processes += Path(f"/proc/{process}/task/{process}/children").read_text().split()
            if "--type=renderer" in Path(f"/proc/{process}/cmdline").read_text():
                lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
                most = max(most, sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1000)
        return most

    def screenshot(self):
        """What is seen, uint8 (H, W, 3)."""
        png = self.call("Page.captureScreenshot")["data"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))
