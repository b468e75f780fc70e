"""The forms of credentials that are looked for: well-known, unmistakable, each bounded. Data for `redaction`.

A form is found by plain searches for its literals first. Guessing by key names would eat ordinary prose, so it is not
done.
"""

import re
from dataclasses import dataclass

LONGEST_CREDENTIAL = 16 * 1024
"""Bound of every pattern below, and so of how far back a changed end can reach into what was already searched."""
BEFORE_SECRET = 128
"""Bound of what stands before a secret in a pattern, quotes and colons included; a secret itself holds no quote."""

RUN = 15
TOKEN_CHARS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-+/=.~%"
REACH = 64

# A credential begins at a word's edge; in JSON text, the letter of an escape (`\n`, `\u00e9`) is no part of a word.
_EDGE = rb"(?:(?<![A-Za-z0-9_\-])|(?<=\\[nrtbf])|(?<=\\u[0-9a-fA-F]{4}))"
# As above, and not inside base64 either (where `=` only ever ends it: `KEY=AKIA...` is an edge).
_EDGE64 = rb"(?:(?<![A-Za-z0-9_\-+/])|(?<=\\[nrtbf])|(?<=\\u[0-9a-fA-F]{4}))"
_END = rb"(?![A-Za-z0-9_\-+/=])"


@dataclass(frozen=True, slots=True)
class Form:
    placeholder: bytes
    literals: tuple[bytes, ...]
    pattern: re.Pattern[bytes]
    """Matched where a literal stands; what group `secret` holds is replaced, or all of it."""
    back: int = 0
    """How far before the literal the match begins."""
    everywhere: bool = False
    """It may be short or hold spaces. All others hold RUN of TOKEN_CHARS in a row, at most REACH behind the literal."""


def _form(
    kind: str, literals: str | tuple[str, ...], pattern: bytes, back: int = 0, *, everywhere: bool = False
) -> Form:
    texts = (literals,) if isinstance(literals, str) else literals
    return Form(
        f"[redacted:{kind}]".encode(), tuple(text.encode() for text in texts), re.compile(pattern), back, everywhere
    )


FORMS = (
    _form("anthropic-api-key", "sk-ant-", _EDGE + rb"sk-ant-[A-Za-z0-9_\-]{20,400}"),
    _form(
        "openai-api-key",
        "sk-",
        _EDGE + rb"(?:sk-(?:proj|svcacct|admin|or-v1)-[A-Za-z0-9_\-]{24,400}|sk-[A-Za-z0-9]{32,200}(?![A-Za-z0-9_\-]))",
    ),
    _form("aws-access-key-id", ("AKIA", "ASIA"), _EDGE64 + rb"(?:AKIA|ASIA)[A-Z0-9]{16}" + _END),
    _form(
        "aws-secret-access-key",
        ("ecret_access_key", "ecretAccessKey", "ECRET_ACCESS_KEY"),
        rb"(?i:ecret_?access_?key)[\s\"'\\:=]{1,12}(?P<secret>[A-Za-z0-9/+]{40})" + _END,
    ),
    _form("github-token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), _EDGE + rb"gh[pousr]_[A-Za-z0-9]{36,255}"),
    _form("github-token", "github_pat_", _EDGE + rb"github_pat_[A-Za-z0-9_]{40,255}"),
    _form("gitlab-token", "glpat-", _EDGE + rb"glpat-[A-Za-z0-9_\-]{20,200}"),
    _form("slack-token", "xox", _EDGE + rb"xox[abeoprs]-[A-Za-z0-9\-]{10,400}"),
    _form("slack-token", "xapp-", _EDGE + rb"xapp-[0-9]-[A-Za-z0-9\-]{20,400}"),
    _form(
        "slack-webhook",
        "hooks.slack.com/services/",
        rb"hooks\.slack\.com/services/(?P<secret>T[A-Za-z0-9]{6,20}/B[A-Za-z0-9]{6,20}/[A-Za-z0-9]{16,64})",
    ),
    _form("google-api-key", "AIza", _EDGE64 + rb"AIza[A-Za-z0-9_\-]{35}(?![A-Za-z0-9_\-+/=])"),
    _form("google-access-token", "ya29.", _EDGE + rb"ya29\.[A-Za-z0-9_\-]{20,2000}"),
    _form("stripe-api-key", ("k_live_", "k_test_"), _EDGE + rb"[rs]k_(?:live|test)_[A-Za-z0-9]{16,250}", back=1),
    _form("stripe-webhook-secret", "whsec_", _EDGE + rb"whsec_[A-Za-z0-9+/]{24,200}={0,2}"),
    _form("huggingface-token", "hf_", _EDGE + rb"hf_[A-Za-z0-9]{34,64}(?![A-Za-z0-9_\-])"),
    _form("npm-token", "npm_", _EDGE + rb"npm_[A-Za-z0-9]{36}(?![A-Za-z0-9_\-])"),
    _form("pypi-token", "pypi-AgE", _EDGE + rb"pypi-AgE[A-Za-z0-9_\-]{40,1000}"),
    _form("sendgrid-api-key", "SG.", _EDGE + rb"SG\.[A-Za-z0-9_\-]{22}\.[A-Za-z0-9_\-]{43}(?![A-Za-z0-9_\-])"),
    _form(
        "jwt",
        "eyJ",
        _EDGE64 + rb"eyJ[A-Za-z0-9_\-]{10,4096}\.eyJ[A-Za-z0-9_\-]{10,8192}\.[A-Za-z0-9_\-]{0,2048}",
    ),
    _form(
        "bearer-token",
        ("earer ", "EARER "),
        rb"(?i:earer) {1,4}(?=[A-Za-z0-9._~+/\-]*[0-9])(?P<secret>[A-Za-z0-9._~+/\-]{20,4096}={0,2})",
    ),
    _form(
        "private-key",
        "-----BEGIN ",
        # Up to the end mark, or, where the text was cut, as far as it looks like a key. Never ends inside an escape.
        rb"-----BEGIN (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
        rb"(?:(?:[A-Za-z0-9+/=,.:() \r\n\t]|-(?!-)|\\+[nrt]|\\/){0,15000}"
        rb"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        rb"|(?:[A-Za-z0-9+/= \r\n\t]|\\+[nrt]|\\/){0,15000})",
        everywhere=True,
    ),
    _form(
        "url-password",
        "://",
        rb"://[^\s/:@\"'\\<>\[\]{}]{0,200}:(?P<secret>(?![\[{$<*%])[^\s/@\"'\\<>]{1,256})@",
        everywhere=True,
    ),
    # --- clouds and hosting ---
    _form(
        "azure-client-secret",
        "Q~",
        _EDGE + rb"[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.\-]{31,34}(?![A-Za-z0-9_~.\-])",
        back=4,
    ),
    _form("azure-account-key", "AccountKey=", rb"AccountKey=(?P<secret>[A-Za-z0-9+/]{86}==)"),
    _form("azure-shared-access-key", "AccessKey=", rb"AccessKey=(?P<secret>[A-Za-z0-9+/]{43}=)(?![A-Za-z0-9+/=])"),
    _form(
        "azure-sas-signature",
        ("?sig=", "&sig=", "&amp;sig=", "u0026sig="),
        rb"(?:\?|&|&amp;|u0026)sig=(?P<secret>[A-Za-z0-9%+/]{40,120}(?:%3[Dd]|=))",
    ),
    _form("cloudflare-origin-ca-key", "v1.0-", _EDGE + rb"v1\.0-[0-9a-f]{24}-[0-9a-f]{146}(?![A-Za-z0-9])"),
    _form("databricks-token", "dapi", _EDGE64 + rb"dapi[0-9a-f]{32}(?:-[0-9]{1,2})?(?![A-Za-z0-9_\-+/=])"),
    _form("digitalocean-token", ("dop_v1_", "doo_v1_", "dor_v1_"), _EDGE + rb"do[opr]_v1_[0-9a-f]{64}(?![A-Za-z0-9])"),
    _form("docker-token", ("dckr_pat_", "dckr_oat_"), _EDGE + rb"dckr_[po]at_[A-Za-z0-9_\-]{27,64}(?![A-Za-z0-9_\-])"),
    _form("google-client-secret", "GOCSPX-", _EDGE + rb"GOCSPX-[A-Za-z0-9_\-]{28}(?![A-Za-z0-9_\-])"),
    _form("hashicorp-token", ("hvs.", "hvb."), _EDGE64 + rb"hv[sb]\.[A-Za-z0-9_\-]{90,300}(?![A-Za-z0-9_\-])"),
    _form("pulumi-token", "pul-", _EDGE64 + rb"pul-[0-9a-f]{40}(?![A-Za-z0-9_\-])"),
    _form("supabase-token", "sbp_", _EDGE + rb"sbp_[0-9a-f]{40}(?![A-Za-z0-9_\-])"),
    # --- models ---
    _form("groq-api-key", "gsk_", _EDGE + rb"gsk_[A-Za-z0-9]{52}(?![A-Za-z0-9_\-])"),
    _form("replicate-token", "r8_", _EDGE + rb"r8_[A-Za-z0-9]{37}(?![A-Za-z0-9_\-])"),
    _form("xai-api-key", "xai-", _EDGE + rb"xai-[A-Za-z0-9]{70,100}(?![A-Za-z0-9_\-])"),
    _form("perplexity-api-key", "pplx-", _EDGE + rb"pplx-[A-Za-z0-9]{48,64}(?![A-Za-z0-9_\-])"),
    _form(
        "langfuse-secret-key", "sk-lf-", _EDGE + rb"sk-lf-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![A-Za-z0-9_\-])"
    ),
    _form(
        "langsmith-api-key",
        ("lsv2_pt_", "lsv2_sk_"),
        _EDGE + rb"lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}(?![A-Za-z0-9])",
    ),
    # --- the rest ---
    _form("atlassian-token", "ATATT3", _EDGE64 + rb"ATATT3[A-Za-z0-9_\-]{100,400}(?:=[0-9A-F]{8})?"),
    _form("gitlab-token", ("glptt-", "gldt-", "glrt-"), _EDGE + rb"gl(?:ptt|dt|rt)-[A-Za-z0-9_\-]{20,60}"),
    _form("grafana-token", "glsa_", _EDGE + rb"glsa_[A-Za-z0-9]{32}_[0-9a-fA-F]{8}(?![A-Za-z0-9])"),
    _form("linear-api-key", "lin_api_", _EDGE + rb"lin_api_[A-Za-z0-9]{40}(?![A-Za-z0-9_\-])"),
    _form("new-relic-api-key", "NRAK-", _EDGE + rb"NRAK-[A-Z0-9]{27}(?![A-Za-z0-9_\-])"),
    _form("postman-api-key", "PMAK-", _EDGE + rb"PMAK-[0-9a-f]{24}-[0-9a-f]{34}(?![A-Za-z0-9])"),
    _form("sentry-token", "sntryu_", _EDGE + rb"sntryu_[0-9a-f]{64}(?![A-Za-z0-9])"),
    _form("sentry-token", "sntrys_eyJ", _EDGE + rb"sntrys_eyJ[A-Za-z0-9+/=_\-]{40,1000}"),
    _form(
        "shopify-token",
        ("shpat_", "shpca_", "shppa_", "shpss_"),
        _EDGE + rb"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}(?![A-Za-z0-9_\-])",
    ),
    _form("square-token", "sq0atp-", _EDGE + rb"sq0atp-[A-Za-z0-9_\-]{22}(?![A-Za-z0-9_\-])"),
    _form("square-secret", "sq0csp-", _EDGE + rb"sq0csp-[A-Za-z0-9_\-]{43}(?![A-Za-z0-9_\-])"),
    _form("telegram-bot-token", ":AA", rb"(?<=[0-9]{8}):(?P<secret>AA[A-Za-z0-9_\-]{33})(?![A-Za-z0-9_\-])"),
    # --- told by what stands before them ---
    _form(
        "basic-auth",
        ("uthorization", "UTHORIZATION"),
        rb"(?i:uthorization)[\s\"'\\:=]{1,12}(?i:basic) {1,4}(?P<secret>[A-Za-z0-9+/]{8,4096}={0,2})",
        everywhere=True,
    ),
    _form(
        "connection-password",
        (";Password=", ";password=", ";PASSWORD=", ";Pwd=", ";pwd=", ";PWD="),
        # With spaces only up to a semicolon: what else follows may be prose.
        rb";(?i:password|pwd)=(?P<secret>(?![\[{$<*%])(?:[^;\"'\\<>\r\n]{1,128}(?=;)|[^;\s\"'\\<>]{1,256}))",
        everywhere=True,
    ),
    _form(
        "url-password",
        ("?password=", "&password="),
        rb"[?&]password=(?P<secret>(?![\[{$<*%])[^&\s\"'\\<>#]{1,256})",
        everywhere=True,
    ),
)
