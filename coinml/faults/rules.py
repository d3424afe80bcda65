"""The words by which failures are told apart, ordered by how strong the evidence is.

The first rule with a pattern that occurs in a message speaks. Patterns are matched against
normalised text: lower case, straight quotes, one line, no addresses and no advice (see
`coinml.faults.classification.normalise`). A pattern
earns its place by naming a kind of failure, not one message.
"""

from __future__ import annotations

import re

HTTP = "http"
"""The rule that stands for an HTTP status which came without words of the site's own."""

_RULES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    # -- this machine: it says so by its own name, whatever else the line complains of
    ("os", "local", (
        r"\[errno (?:1|5|12|13|20|21|23|24|27|28|30|36|63|69|78|122)\]",
        r"\[winerror (?:3|5|32|39|112|123|206)\]",
        r"no space left", r"not enough (?:disk )?space", r"disk (?:is )?full", r"disk quota",
        r"permission denied", r"access is denied", r"operation not permitted",
        r"read-only file system", r"file ?name too long", r"file too large",
        r"too many open files", r"cannot allocate memory", r"out of memory", r"memoryerror",
        r"input/output error", r"is a directory", r"not a directory",
        r"being used by another process",
        r"unable to (?:open for writing|create directory|rename file|write (?:data|file))",
    )),
    ("tool", "local", (
        r"ff(?:mpeg|probe)\b.*(?:not found|not installed|not be found|required|not available)",
        r"(?:not found|install|requires?|without).*\bff(?:mpeg|probe)\b",
        r"(?:: |command )not found$", r"command not found", r"is not recognized as an internal",
        r"no such file or directory", r"error while loading shared libraries",
        r"no module named", r"importerror", r"modulenotfounderror",
        r"no (?:supported|usable)? ?(?:javascript|js) runtime",
        r"(?:unsupported|requires?|deprecated|need) (?:version of )?python",
        r"impersonat\w* target.*not available",
        r"postprocess\w*: (?!.*http error)", r"conversion failed", r"rtmpdump",
        r"(?:missing|requires?|install).*(?:pycryptodome|curl_cffi|websockets|brotli)",
    )),
    ("cookies", "local", (
        r"dpapi", r"cookies? database", r"keyring", r"secretstorage", r"cookieload",
        r"netscape format", r"cookies? file",
        r"could not (?:copy|find|open|read|decrypt|load)\b.*\bcookie",
        r"(?:failed|unable) to (?:decrypt|load|open|read|copy)\b.*\bcookie",
    )),
    ("proxy", "local", (
        r"tunnel connection failed", r"proxy authentication", r"proxyerror",
        r"(?:unable|cannot|failed) (?:to )?connect to proxy",
        r"\bproxy\b.*\b(?:40[37]|refused|failed|error|denied)",
        r"socks(?:4a?|5h?)?\b.*\b(?:error|failed|refused|unsupported)",
        r"(?:unsupported|invalid) proxy",
    )),
    ("certificate", "local", (
        r"certificate[_ ]verify[_ ]failed", r"certificate verify", r"certificate has expired",
        r"unable to get local issuer", r"self[- ]signed certificate",
    )),
    # -- the line and the server: ahead of "unavailable" and of "try again later", which stand
    #    in such messages too
    ("line", "transient", (
        r"timed? ?-?out\b", r"timeout", r"broken pipe", r"reset by peer", r"remote end closed",
        r"connection ?(?:was )?(?:aborted|reset|refused|closed|broken|error)",
        r"err_(?:connection|network|internet|name|address|timed|empty)",
        r"remote ?disconnected", r"connection.*forcibly", r"recv failure",
        r"name resolution", r"failed to resolve", r"could not resolve", r"getaddrinfo", r"gaierror",
        r"nodename nor servname", r"name or service not known", r"no address associated",
        r"temporary failure", r"network error", r"network is (?:unreachable|down)",
        r"no route to host", r"host is (?:unreachable|down)", r"max retries exceeded",
        r"newconnectionerror", r"failed to establish a new connection",
        r"winerror 100[3-6]\d", r"errno 1100\d",
        r"\berrno (?:100|101|102|103|104|110|111|112|113)\b",
        r"incomplete ?read", r"bytes read", r"content too short", r"did not get any data",
        r"downloaded \d+ bytes, expected", r"(?:downloaded )?file is empty", r"returned nothing",
        r"eof occurred", r"unexpected eof", r"handshake", r"tlsv1", r"bad record mac",
        r"wrong version number", r"decryption failed", r"ssl(?:v3)?[:_ ].*(?:alert|eof|protocol)",
        r"bad ?status ?line", r"invalid chunk", r"chunked ?encoding", r"protocolerror",
        r"urlopen error (?!.*unknown url type)",
        r"curl: \((?:6|7|16|18|28|35|52|55|56|92)\)",
        r"fragment (?:\d+ )?not found(?!.*\b40[23]\b)", r"giving up after \d+ .*retries$",
        r"throttle limit", r"server[- ]side", r"backend error",
        r"(?:internal )?server error(?!.*\b4\d\d\b)", r"bad gateway", r"service unavailable",
    )),
    # -- the source is tired of us, in words that name us and not the video
    ("robot", "blocked", (
        r"not a (?:ro)?bot\b", r"captcha", r"anti-?bot", r"you(?:'re| are) (?:a )?human",
        r"pas un robot", r"kein (?:ro)?bot", r"no eres un (?:ro)?bot", r"n[aã]o é um rob[oô]",
        r"unusual traffic", r"automated (?:queries|requests|traffic)", r"suspicious activity",
        r"rate[- ]?limit", r"too ?many ?(?:requests|attempts|quer)", r"wait a few minutes",
        r"(?:this|your|current) (?:ip|session|account|address|network)\b.{0,40}"
        r"(?:block|ban|limit|flag|throttl|suspicious)",
        r"\bip\b.{0,30}\b(?:block|ban)", r"(?:block|ban)\w*.{0,20}\bip\b",
        r"(?:content|video) (?:isn't|is not) available,? (?:please )?try again later",
        r"requests? (?:(?:was|were|has been|have been) )?(?:blocked|throttled)",
        r"quota ?exceeded", r"exceeded.{0,20}quota",
        r"latest version of youtube", r"not available on this app",
        r"po token.{0,40}(?:required|invalid)",
        r"access (?:to this (?:page|site) )?(?:has been |was )?denied", r"cloudflare",
        r"\bforbidden",
    )),
    # -- a private video asks for a login too, which would not help
    ("private", "gone", (
        r"\bprivate\b(?! network| key)", r"granted access", r"非公開", r"privée?\b",
    )),
    # -- it exists, for others than us
    ("place", "restricted", (
        r"\b(?:in|from|for|to|within|outside) (?:(?:your|this|certain|some|the|these|most) )+"
        r"(?:current )?(?:country|countries|region|location|territor|area|state)",
        r"geo[- _]?(?:restrict|block|graph)", r"country.?restrict", r"vpn",
        r"available in (?:your|the following)", r"available (?:only )?in [a-z ]{2,30} only",
        r"available only (?:in|from|within) ",
        r"in deinem land", r"dans votre pays", r"en (?:tu|su) país", r"お住まいの国",
        r"вашей стране",
    )),
    ("age", "restricted", (
        r"confirm your age", r"verify your age", r"age[- ]?(?:restrict|gate|limit|verif|check)",
        r"\badults?\b", r"mature", r"nsfw", r"under ?age", r"inappropriate (?:for|or)",
        r"(?:18|eighteen)(?:\+| years| or (?:over|older))", r"viewer discretion",
        r"may be (?:offensive|inappropriate|disturbing)", r"content warning",
    )),
    ("members", "restricted", (
        r"members?[- ]only", r"\bmembers\b", r"membership", r"join this channel", r"premium",
        r"subscri(?:be|ption)", r"followers? only", r"patron", r"purchas", r"\brent(?:al|ed|s)?\b",
        r"\bpa(?:y|id)\b", r"payment", r"requires? (?:a )?ticket", r"\bbuy\b",
    )),
    ("login", "restricted", (
        r"(?:sign|log)(?:ged|ging)?[- ]?in\b", r"login", r"authenticat", r"authoriz",
        r"unauthorized", r"credentials", r"cookies", r"password", r"registered users",
        r"account (?:is )?(?:required|needed)", r"requires? (?:an? )?account", r"restricted",
        r"organi[sz]ation", r"administrator", r"workspace", r"youtube kids",
        r"account does not have",
    )),
    ("embed", "restricted", (
        r"(?:playback|embedding).{0,40}(?:disabled|not allowed|disallowed)", r"other websites",
        r"watch (?:this video )?on youtube",
    )),
    (HTTP, "transient", ()),
    # -- nothing to be had from it with what runs here
    ("format", "unsupported", (
        r"formats?\b.{0,40}(?:not available|unavailable|missing|skipped|not found|cannot be)",
        r"no (?:(?:video|audio|playable|suitable|usable|active) )*(?:formats?|streams?)\b",
        r"only images", r"\bdrm\b", r"widevine", r"\bsabr\b", r"encrypted (?:media|with)",
        r"not (?:currently )?supported", r"is unsupported", r"currently unsupported",
        r"unsupported (?!.*(?:proxy|python))", r"no suitable (?:extractor|infoextractor)",
        r"not a valid url", r"unknown url type", r"invalid url", r"forget to quote",
        r"truncated", r"incomplete youtube id", r"no file came", r"unsafe extension",
        r"extension .*(?:unusual|unsafe)",
    )),
    ("removed", "gone", (
        r"\bremoved\b", r"\bdelet(?:ed|ion)", r"\bterminat", r"\bsuspended", r"\bwithdrawn",
        r"no longer (?:available|exists?|on)", r"(?:does|do|did) ?(?:n't|not) exist",
        r"copyright", r"trademark", r"infring", r"violat", r"take[- ]?down", r"taken down", r"dmca",
        r"account.{0,30}closed", r"closed.{0,30}account", r"\bbanned", r"has been disabled",
        r"legal (?:complaint|request)", r"court order", r"non-?existent", r"no such video",
        r"(?:cannot|could not) be found", r"cannot find video", r"invalid video id",
        r"hate speech", r"community guidelines", r"terms of (?:service|use)",
    )),
    ("live", "unsupported", (
        r"\blive ?(?:stream|event|broadcast)", r"(?:is|currently) (?:not )?(?:currently )?live\b",
        r"will begin", r"premi(?:e)?re", r"\boffline\b", r"upcoming", r"scheduled", r"starts? in\b",
        r"not (?:yet )?(?:started|begun|available yet)", r"not yet available",
        r"process(?:ed|ing) (?:this |the )?video", r"(?:still being|is) process",
        r"recording is not available", r"\blive\b.{0,30}(?:ended|over)", r"live dash",
    )),
    ("dated", "unsupported", (
        r"unable to (?:extract|parse|decode|decrypt|find|determine|get)",
        r"(?:could not|cannot|failed to|couldn't) (?:extract|parse|identify|decode|decrypt|find)",
        r"extraction failed", r"extractor (?:error|is|has)", r"nsig", r"\bsignature", r"challenge",
        r"player (?:url|version|code)", r"precondition", r"page needs to be reloaded",
        r"regexnotfound", r"keyerror", r"typeerror", r"attributeerror", r"jsondecode",
        r"please report this", r"confirm you are on the latest", r"(?:newer|latest) version of",
        r"(?:yt-dlp|youtube-dl) -u\b", r"out of date", r"outdated", r"upgrade",
        r"update (?:yt|youtube)",
    )),
    # -- vague: it may come back by itself, to us or to anyone
    ("response", "transient", (r"player response", r"initial data")),
    ("absent", "gone", (
        r"(?:video|content|media|item|page|clip) (?:is |was )?(?:currently )?"
        r"(?:unavailable|not available|not found|isn't available)",
        r"unavailable video", r"not available any ?more", r"(?:^|: )unavailable",
        r"nicht (?:mehr )?verfügbar", r"n'est (?:plus|pas) disponible", r"ya no está disponible",
        r"no está disponible", r"não está (?:mais )?disponível", r"non è (?:più )?disponibile",
        r"недоступно", r"利用できません", r"再生できません", r"不可用", r"无法播放",
    )),
    ("later", "blocked", (r"try again (?:later|in)", r"retry later", r"come back later")),
    ("vague", "transient", (
        r"temporar", r"internal error", r"something went wrong", r"try again", r"incomplete",
        r"overload", r"error occurred", r"reload", r"unexpected error",
    )),
    ("nothing", "gone", (r"\bnot available\b", r"\bunavailable\b", r"not found", r"no video")),
)  # fmt: skip

COMPILED: tuple[tuple[str, str, re.Pattern[str] | None], ...] = tuple(
    (name, fault, re.compile("|".join(patterns)) if patterns else None)
    for name, fault, patterns in _RULES
)
"""(name of the rule, name of the fault, pattern); no pattern: `HTTP`."""

STATUS = re.compile(
    r"(?:http(?: status)?(?: error)?(?: code)?|status(?: code)?|response(?: code)?|returned|code)"
    r"[ :=]*\[?([45]\d\d)\b"
    r"|error:? \[?([45]\d\d)\]?[ :]"
    r"|<httperror ([45]\d\d)"
    r"|\b([45]\d\d) (?:client |server )?(?:error|forbidden|too many|not found)"
)
"""An HTTP status as messages write it."""
