"""Patterns that classify a failure by its message as a fault, strongest evidence first.

The first rule with a match decides. Patterns are matched against normalised text: lower case,
straight quotes, one line, no URLs and no advice (`coinml.faults.classification.normalise`).
A pattern names a kind of failure, not one message.
"""

from __future__ import annotations

import re

HTTP = "http"
"""The rule for messages that give only an HTTP status, which `STATUS` finds."""

# (rule, fault) -> a regular expression. Its lines are stripped and joined, so a line that does not
# begin with "|" continues the one above, and a pattern cannot rely on a space at a line's end.
_RULES: dict[tuple[str, str], str] = {
    # Problems of this machine: errors of the operating system, and of tools.
    ("os", "local"): r"""
        \[errno (?:1|5|12|13|20|21|23|24|27|28|30|36|63|69|78|122)\]
        |\[winerror (?:3|5|32|39|112|123|206)\]
        |no space left|not enough (?:disk )?space|disk (?:is )?full|disk quota
        |permission denied|access is denied|operation not permitted
        |read-only file system|file ?name too long|file too large
        |too many open files|cannot allocate memory|out of memory|memoryerror
        |input/output error|is a directory|not a directory
        |being used by another process
        |unable to (?:open for writing|create directory|rename file|write (?:data|file))
    """,
    ("tool", "local"): r"""
        ff(?:mpeg|probe)\b.*(?:not found|not installed|not be found|required|not available)
        |(?:not found|install|requires?|without).*\bff(?:mpeg|probe)\b
        |(?:: |command )not found$|command not found|is not recognized as an internal
        |no such file or directory|error while loading shared libraries
        |no module named|importerror|modulenotfounderror
        |no (?:supported|usable)? ?(?:javascript|js) runtime
        |(?:unsupported|requires?|deprecated|need) (?:version of )?python
        |impersonat\w* target.*not available
        |postprocess\w*: (?!.*http error)|conversion failed|rtmpdump
        |(?:missing|requires?|install).*(?:pycryptodome|curl_cffi|websockets|brotli)
    """,
    ("cookies", "local"): r"""
        dpapi|cookies? database|keyring|secretstorage|cookieload
        |netscape format|cookies? file
        |could not (?:copy|find|open|read|decrypt|load)\b.*\bcookie
        |(?:failed|unable) to (?:decrypt|load|open|read|copy)\b.*\bcookie
    """,
    ("proxy", "local"): r"""
        tunnel connection failed|proxy authentication|proxyerror
        |(?:unable|cannot|failed) (?:to )?connect to proxy
        |\bproxy\b.*\b(?:40[37]|refused|failed|error|denied)
        |socks(?:4a?|5h?)?\b.*\b(?:error|failed|refused|unsupported)
        |(?:unsupported|invalid) proxy
    """,
    ("certificate", "local"): r"""
        certificate[_ ]verify[_ ]failed|certificate verify|certificate has expired
        |unable to get local issuer|self[- ]signed certificate
    """,
    # Network and server errors: before "unavailable" and "try again later", which such messages
    # also contain.
    ("line", "transient"): r"""
        timed? ?-?out\b|timeout|broken pipe|reset by peer|remote end closed
        |connection ?(?:was )?(?:aborted|reset|refused|closed|broken|error)
        |err_(?:connection|network|internet|name|address|timed|empty)
        |remote ?disconnected|connection.*forcibly|recv failure
        |name resolution|failed to resolve|could not resolve|getaddrinfo|gaierror
        |nodename nor servname|name or service not known|no address associated
        |temporary failure|network error|network is (?:unreachable|down)
        |no route to host|host is (?:unreachable|down)|max retries exceeded
        |newconnectionerror|failed to establish a new connection
        |winerror 100[3-6]\d|errno 1100\d
        |\berrno (?:100|101|102|103|104|110|111|112|113)\b
        |incomplete ?read|bytes read|content too short|did not get any data
        |downloaded \d+ bytes, expected|(?:downloaded )?file is empty|returned nothing
        |eof occurred|unexpected eof|handshake|tlsv1|bad record mac
        |wrong version number|decryption failed|ssl(?:v3)?[:_ ].*(?:alert|eof|protocol)
        |bad ?status ?line|invalid chunk|chunked ?encoding|protocolerror
        |urlopen error (?!.*unknown url type)
        |curl: \((?:6|7|16|18|28|35|52|55|56|92)\)
        |fragment (?:\d+ )?not found(?!.*\b40[23]\b)|giving up after \d+ .*retries$
        |throttle limit|server[- ]side|backend error
        |(?:internal )?server error(?!.*\b4\d\d\b)|bad gateway|service unavailable
    """,
    # The source refuses this client: the message names the client, not the video.
    ("robot", "blocked"): r"""
        not a (?:ro)?bot\b|captcha|anti-?bot|you(?:'re| are) (?:a )?human
        |pas un robot|kein (?:ro)?bot|no eres un (?:ro)?bot|n[aã]o é um rob[oô]
        |unusual traffic|automated (?:queries|requests|traffic)|suspicious activity
        |rate[- ]?limit|too ?many ?(?:requests|attempts|quer)|wait a few minutes
        |(?:this|your|current) (?:ip|session|account|address|network)\b.{0,40}
        (?:block|ban|limit|flag|throttl|suspicious)
        |\bip\b.{0,30}\b(?:block|ban)|(?:block|ban)\w*.{0,20}\bip\b
        |(?:content|video) (?:isn't|is not) available,? (?:please )?try again later
        |requests? (?:(?:was|were|has been|have been) )?(?:blocked|throttled)
        |quota ?exceeded|exceeded.{0,20}quota
        |latest version of youtube|not available on this app
        |po token.{0,40}(?:required|invalid)
        |access (?:to this (?:page|site) )?(?:has been |was )?denied|cloudflare
        |\bforbidden
    """,
    # Before "login": a private video asks for a login, which does not help.
    ("private", "gone"): r"""
        \bprivate\b(?! network| key)|granted access|非公開|privée?\b
    """,
    # The video exists, but not for this client.
    ("place", "restricted"): r"""
        \b(?:in|from|for|to|within|outside) (?:(?:your|this|certain|some|the|these|most) )+
        (?:current )?(?:country|countries|region|location|territor|area|state)
        |geo[- _]?(?:restrict|block|graph)|country.?restrict|vpn
        |available in (?:your|the following)|available (?:only )?in [a-z ]{2,30} only
        |available only (?:in|from|within) |in deinem land|dans votre pays|en (?:tu|su) país
        |お住まいの国|вашей стране
    """,
    ("age", "restricted"): r"""
        confirm your age|verify your age|age[- ]?(?:restrict|gate|limit|verif|check)
        |\badults?\b|mature|nsfw|under ?age|inappropriate (?:for|or)
        |(?:18|eighteen)(?:\+| years| or (?:over|older))|viewer discretion
        |may be (?:offensive|inappropriate|disturbing)|content warning
    """,
    ("members", "restricted"): r"""
        members?[- ]only|\bmembers\b|membership|join this channel|premium
        |subscri(?:be|ption)|followers? only|patron|purchas|\brent(?:al|ed|s)?\b
        |\bpa(?:y|id)\b|payment|requires? (?:a )?ticket|\bbuy\b
    """,
    ("login", "restricted"): r"""
        (?:sign|log)(?:ged|ging)?[- ]?in\b|login|authenticat|authoriz
        |unauthorized|credentials|cookies|password|registered users
        |account (?:is )?(?:required|needed)|requires? (?:an? )?account|restricted
        |organi[sz]ation|administrator|workspace|youtube kids
        |account does not have
    """,
    ("embed", "restricted"): r"""
        (?:playback|embedding).{0,40}(?:disabled|not allowed|disallowed)|other websites
        |watch (?:this video )?on youtube
    """,
    (HTTP, "transient"): "",
    # No usable format, no longer there, not there yet, or an outdated yt-dlp.
    ("format", "unsupported"): r"""
        formats?\b.{0,40}(?:not available|unavailable|missing|skipped|not found|cannot be)
        |no (?:(?:video|audio|playable|suitable|usable|active) )*(?:formats?|streams?)\b
        |only images|\bdrm\b|widevine|\bsabr\b|encrypted (?:media|with)
        |not (?:currently )?supported|is unsupported|currently unsupported
        |unsupported (?!.*(?:proxy|python))|no suitable (?:extractor|infoextractor)
        |not a valid url|unknown url type|invalid url|forget to quote
        |truncated|incomplete youtube id|no file came|unsafe extension
        |extension .*(?:unusual|unsafe)
    """,
    ("removed", "gone"): r"""
        \bremoved\b|\bdelet(?:ed|ion)|\bterminat|\bsuspended|\bwithdrawn
        |no longer (?:available|exists?|on)|(?:does|do|did) ?(?:n't|not) exist
        |copyright|trademark|infring|violat|take[- ]?down|taken down|dmca
        |account.{0,30}closed|closed.{0,30}account|\bbanned|has been disabled
        |legal (?:complaint|request)|court order|non-?existent|no such video
        |(?:cannot|could not) be found|cannot find video|invalid video id
        |hate speech|community guidelines|terms of (?:service|use)
    """,
    ("live", "unsupported"): r"""
        \blive ?(?:stream|event|broadcast)|(?:is|currently) (?:not )?(?:currently )?live\b
        |will begin|premi(?:e)?re|\boffline\b|upcoming|scheduled|starts? in\b
        |not (?:yet )?(?:started|begun|available yet)|not yet available
        |process(?:ed|ing) (?:this |the )?video|(?:still being|is) process
        |recording is not available|\blive\b.{0,30}(?:ended|over)|live dash
    """,
    ("dated", "unsupported"): r"""
        unable to (?:extract|parse|decode|decrypt|find|determine|get)
        |(?:could not|cannot|failed to|couldn't) (?:extract|parse|identify|decode|decrypt|find)
        |extraction failed|extractor (?:error|is|has)|nsig|\bsignature|challenge
        |player (?:url|version|code)|precondition|page needs to be reloaded
        |regexnotfound|keyerror|typeerror|attributeerror|jsondecode
        |please report this|confirm you are on the latest|(?:newer|latest) version of
        |(?:yt-dlp|youtube-dl) -u\b|out of date|outdated|upgrade
        |update (?:yt|youtube)
    """,
    # Weak evidence.
    ("response", "transient"): r"""
        player response|initial data
    """,
    ("absent", "gone"): r"""
        (?:video|content|media|item|page|clip) (?:is |was )?(?:currently )?
        (?:unavailable|not available|not found|isn't available)
        |unavailable video|not available any ?more|(?:^|: )unavailable
        |nicht (?:mehr )?verfügbar|n'est (?:plus|pas) disponible|ya no está disponible
        |no está disponible|não está (?:mais )?disponível|non è (?:più )?disponibile
        |недоступно|利用できません|再生できません|不可用|无法播放
    """,
    ("later", "blocked"): r"""
        try again (?:later|in)|retry later|come back later
    """,
    ("vague", "transient"): r"""
        temporar|internal error|something went wrong|try again|incomplete
        |overload|error occurred|reload|unexpected error
    """,
    ("nothing", "gone"): r"""
        \bnot available\b|\bunavailable\b|not found|no video
    """,
}

COMPILED: tuple[tuple[str, str, re.Pattern[str] | None], ...] = tuple(
    (rule, fault, re.compile("".join(map(str.strip, lines.splitlines()))) if lines else None)
    for (rule, fault), lines in _RULES.items()
)
"""(rule, fault, pattern), strongest evidence first; the pattern of `HTTP` is None."""

STATUS = re.compile(
    r"(?:http(?: status)?(?: error)?(?: code)?|status(?: code)?|response(?: code)?|returned|code)"
    r"[ :=]*\[?([45]\d\d)\b"
    r"|error:? \[?([45]\d\d)\]?[ :]"
    r"|<httperror ([45]\d\d)"
    r"|\b([45]\d\d) (?:client |server )?(?:error|forbidden|too many|not found)"
)
"""An HTTP status from 400 to 599, as messages write it."""
