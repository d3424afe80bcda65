#!/usr/bin/env bash
# One value of NO_PROXY means different things to httpx, requests and urllib, and some values end
# every request of httpx, whatever its host.
#
# Seen with Python 3.11, httpx 0.28.1, requests 2.32.5 (d: direct, p: through the proxy):
#                         httpx                  requests   urllib
#   127.0.0.0/8           p                      d          p       http://127.0.0.1
#   ::1                   d                      d          p       http://[::1]
#   [::1]                 InvalidURL, any host   p          d       http://[::1]
#   fe80::/10             InvalidURL, any host   p          p       http://127.0.0.1
#   *,corp.example        d                      p          p       http://127.0.0.1
#   ALL_PROXY=socks5://…  ImportError without the extra `socks`, also for a host in NO_PROXY
# What to do: write the names and addresses themselves (localhost,127.0.0.1,::1), no brackets and no
# networks of IPv6 addresses, and `*` alone; install httpx[socks].
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check httpx==0.28.1 requests==2.32.5
cat > "$work/look.py" <<'P'
import os
import urllib.request

import httpx
import requests

for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[name]
PROXY = "http://127.0.0.1:9"


def by_httpx(url):
    try:
        client = httpx.Client()
    except Exception as err:
        return type(err).__name__
    # The transport that it would take; no request is sent.
    taken = client._transport_for_url(httpx.URL(url))
    return "d" if taken is client._transport else "p"


def by_requests(url):
    return "p" if requests.utils.get_environ_proxies(url) else "d"


def by_urllib(url):
    request = urllib.request.Request(url)
    return "d" if urllib.request.proxy_bypass(request.host) else "p"


SEEN = [
    ("127.0.0.0/8", "http://127.0.0.1:80/", ("p", "d", "p")),
    ("::1", "http://[::1]:80/", ("d", "d", "p")),
    ("[::1]", "http://[::1]:80/", ("InvalidURL", "p", "d")),
    ("[::1]", "http://example.org/", ("InvalidURL", "p", "p")),
    ("fe80::/10", "http://127.0.0.1:80/", ("InvalidURL", "p", "p")),
    ("*,corp.example", "http://127.0.0.1:80/", ("d", "p", "p")),
    ("localhost,127.0.0.1,::1", "http://127.0.0.1:80/", ("d", "d", "d")),
]
os.environ["http_proxy"] = PROXY
for value, url, expected in SEEN:
    os.environ["no_proxy"] = value
    found = (by_httpx(url), by_requests(url), by_urllib(url))
    print(f"{value:26} {url:24} {found}")
    assert found == expected, (value, url, found, expected)
del os.environ["http_proxy"]
os.environ |= {"all_proxy": "socks5://127.0.0.1:9", "no_proxy": "127.0.0.1"}
print("socks5:", by_httpx("http://127.0.0.1:80/"))
assert by_httpx("http://127.0.0.1:80/") == "ImportError"
P
"$work/venv/bin/python" "$work/look.py"
echo "as stated"
