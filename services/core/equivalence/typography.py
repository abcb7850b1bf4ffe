"""One typography for answers: Unicode to LaTeX, spacing, sizing and delimiters away. Pure text, linear time.

What survives is what carries meaning: digits, letters, operators, commands, words. Nothing here knows mathematics.
"""

import re
import unicodedata

# An answer that a person would write is far shorter; longer ones are compared as they stand.
MAX_CHARS = 4096

_CHARACTERS = {
    **dict.fromkeys("−–—‒―‐‑﹣－", "-"),
    **dict.fromkeys("×✕✖⨯", r"\times "),
    **dict.fromkeys("·⋅∙•", r"\cdot "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f", ""),
    **dict.fromkeys("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069", ""),
    **dict.fromkeys("‘’′ʹ`´", "'"),
    **dict.fromkeys("“”", '"'),
    **dict.fromkeys("⟨〈", r"\langle "),
    **dict.fromkeys("⟩〉", r"\rangle "),
    **dict.fromkeys("∅⌀", r"\emptyset "),
    **dict.fromkeys("…⋯", r"\ldots "),
    **dict.fromkeys("≤⩽≦", r"\le "),
    **dict.fromkeys("≥⩾≧", r"\ge "),
    **dict.fromkeys("∣｜", "|"),
    **dict.fromkeys("¢￠", r"\text{ cents}"),
    **dict.fromkeys("°º˚", r"^\circ "),
    "、": ",", "。": ".", "″": "''", "÷": r"\div ", "∕": "/", "⁄": "/", "∗": "*", "∓": r"\mp ", "±": r"\pm ",
    "√": r"\sqrt ", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]", "∞": r"\infty ", "≠": r"\ne ", "≈": r"\approx ",
    "≡": r"\equiv ", "∈": r"\in ", "∉": r"\notin ", "∪": r"\cup ", "∩": r"\cap ", "∖": r"\setminus ",
    "∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ", "∠": r"\angle ", "△": r"\triangle ", "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}", "⌊": r"\lfloor ",
    "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "→": r"\to ", "‖": r"\|", "∥": r"\parallel ", "⊥": r"\perp ",
    "∧": r"\land ", "∨": r"\lor ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ",
    "ε": r"\epsilon ", "θ": r"\theta ", "λ": r"\lambda ", "μ": r"\mu ", "µ": r"\mu ", "π": r"\pi ", "ρ": r"\rho ",
    "σ": r"\sigma ", "τ": r"\tau ", "φ": r"\phi ", "ϕ": r"\phi ", "χ": r"\chi ", "ψ": r"\psi ", "ω": r"\omega ",
    "Δ": r"\Delta ", "Γ": r"\Gamma ", "Σ": r"\Sigma ", "Ω": r"\Omega ", "Φ": r"\Phi ", "Π": r"\Pi ", "Θ": r"\Theta ",
}  # fmt: skip
_TRANSLATION = str.maketrans(_CHARACTERS)
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱˣ"
_SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₓₙₖₘₚₜ"
_RAISED = re.compile(f"[{_SUPERSCRIPTS}]+")
_LOWERED = re.compile(f"[{_SUBSCRIPTS}]+")
_VULGAR = re.compile("[¼-¾⅐-⅞↉]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

_DIGIT_GROUPS = re.compile(
    r"(?<![\d.,\\])(\d{1,3})((?:(?:\\[,;:! ]|~|[ \u00a0\u2009\u202f])+\d{3})+)(?!\d|\s*/|[ ~]*\\frac)"
)
_COMMAS_IN_NUMBERS = re.compile(r"(?<=\d)\s*(?:\{\s*,\s*\}\s*(?:\\!)?|,\s*\\!|\\!\s*,)\s*(?=\d{3}(?!\d))")
_UNIT_FRACTION = re.compile(
    r"\\frac\s*\{\s*\\(?:text|mathrm)\s*\{([A-Za-z ]+)\}\s*\}\s*\{\s*\\(?:text|mathrm)\s*\{([A-Za-z ]+)\}\s*\}"
)
# 37^\circ\mathrm{C}
_TEMPERATURE = re.compile(r"(?<=\d)\s*\^\s*\{?\s*\\circ\s*\}?\s*(?:\\(?:mathrm|text|rm)\s*)?\{?\s*([CF])\s*\}?$")
_SCALES = {"C": "celsius", "F": "fahrenheit"}
# \left\{ \begin{array}{l} ... \end{array} \right. without its right brace
_SYSTEM = re.compile(r"\\\{\s*\\begin\{array\}\{[lcr| ]*\}(.*?)\\end\{array\}(?!\s*\\\})", re.DOTALL)
# (1,2) U (2,3), by hand
_UNION = re.compile(r"(?<=[)\]])\s*U\s*(?=[(\[][^()\[\]]*,)")
# A whole answer in feet and inches: 6', 5'6", 8''
_FEET = re.compile(r"(-?\d+(?:\.\d+)?)\s*'(?:\s*(\d+(?:\.\d+)?)\s*(?:''|\"))?|(\d+(?:\.\d+)?)\s*(?:''|\")")
# 30^\circ 15' and its seconds
_SEXAGESIMAL = re.compile(r"(\d+)\s*\^\s*\{?\s*\\circ\s*\}?\s*(\d+)\s*'(?:\s*(\d+(?:\.\d+)?)\s*(?:''|\"))?")
_LOST_BACKSLASH = re.compile(r"(?<![\\A-Za-z])(?=[dt]?frac\s*\{)")
_PRIMES = re.compile(r"\^\s*\{\s*((?:\\prime\s*)+)\}|\^\s*(\\prime)(?![A-Za-z])")
# 30^o and 30^{o}, for want of a circle
_LETTER_DEGREE = re.compile(r"(?<=\d)\s*\^\s*(?:\{\s*(?:\\text\s*\{)?\s*o\s*\}?\s*\}|o(?![A-Za-z]))")
_BRACKETED_NUMERAL = re.compile(r"\(\s*([0-9A-Fa-f]+)\s*\)(?=\s*_\s*\{?\s*[\da-z])")
_TIMES = re.compile(r"(?<=\d)\s*[xX]\s*(?=10\s*\^)|(?<=\d)\s+x\s+(?=\d)")
_ELLIPSIS = re.compile(r"\.\.\.|\. \. \.")
_BASE = re.compile(r"(?<![A-Za-z\d])(\d+)\s*(?:\\text\s*\{\s*)?\(?(?:in )?base[- ]?\s*\}?\s*(\d+|[a-z]+)\)?\}?")
_SIZES = re.compile(r"\\(?:left|right)(?![A-Za-z])\s*\.?|\\[bB]igg?[lrm]?(?![A-Za-z])")
_WITH_ARGUMENT = re.compile(r"\\(?:hspace|vspace|phantom|hphantom|vphantom|label|tag|color|textcolor)\*?\s*\{[^{}]*\}")
_STYLES = re.compile(
    r"\\(?:displaystyle|underline|textstyle|scriptstyle|limits|nolimits|quad|qquad|thinspace|enspace|hfill|rm|bf|it|sf|tt|cal"
    r"|tiny|small|normalsize|large|Large|LARGE|huge|Huge|checkmark|blacksquare|allowbreak|newline|noindent|hline|mathstrut|strut|ensuremath|mathop|mathrel|mathbin|mathord)(?![A-Za-z])"
)
# A double backslash ends a row and is no space.
_SPACES = re.compile(r"(\\\\)|\\[,;:! ]|~|\s+|\\$")
_FRACTIONS = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_BINOMIALS = re.compile(r"\\[dt]binom(?![A-Za-z])")
_DELIMITERS = (
    ("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("``", "``"), ("`", "`"), ('"', '"'),
    (r"\begin{equation}", r"\end{equation}"), (r"\begin{equation*}", r"\end{equation*}"),
    (r"\begin{align*}", r"\end{align*}"), (r"\begin{math}", r"\end{math}"),
)  # fmt: skip
_BOX = re.compile(r"\\(?:f?boxed|fbox)\s*\{")
_TEXT_LEAD = re.compile(
    r"\\text(?:bf)?\s*\{\s*(?:the )?(?:final |correct )?answer(?: is)?\s*:?\s*\}\s*:?", re.IGNORECASE
)
_LEAD = re.compile(
    r"(?:so |thus |hence |therefore,? )?(?:the |my |our )?(?:final |correct )?answer(?: is|:| =)\s*:?\s*"
    r"|(?:approximately|approx\.?|about|exactly|roughly|only)\s+(?=[\d\\$.(-])|[=:]\s*",
    re.IGNORECASE,
)
_BARE_DOLLAR = re.compile(r"(?<!\\)\$")
_MONEY = re.compile(r"(?<!\\)\$\s*[\d.]|\d\s*\$")
_WHOLE_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mbox|hbox|mathrm|mathbf)\s*\{([^{}]*)\}")


def tidy(answer: str) -> str:
    """`answer` in one typography. Idempotent on its meaning, not on its characters."""
    if len(answer) > MAX_CHARS:
        return answer.strip()
    text = answer if answer.isascii() else _to_latex(answer)
    text = _CONTROL.sub(" ", text)
    text = _unwrap(text)
    text = _without_dollars(text)
    text = _LOST_BACKSLASH.sub(r"\\", text) if "frac" in text else text
    text = text.replace("{.}", ".").replace(r"\textdollar", r"\$")
    text = _with_primes(text) if "'" in text or '"' in text or r"\prime" in text else text
    text = _UNION.sub(r" \\cup ", text) if "U" in text else text
    text = _COMMAS_IN_NUMBERS.sub("", _TIMES.sub(r"\\times ", text))
    text = _ELLIPSIS.sub(r"\\ldots ", text)
    text = _BASE.sub(r"\1_{\2}", text) if "base" in text else text
    text = _DIGIT_GROUPS.sub(lambda m: m[1] + re.sub(r"\D", "", m[2]), text)
    if "^" in text or "_" in text:
        text = _BRACKETED_NUMERAL.sub(r"\1", _LETTER_DEGREE.sub(r"^\\circ ", text))
    if "\\" in text:
        text = _SIZES.sub("", text)
        text = _STYLES.sub(" ", _WITH_ARGUMENT.sub(" ", text))
        text = text.replace(r"^{\circ}", r"^\circ ")
        text = _TEMPERATURE.sub(lambda m: rf"\text{{ {_SCALES[m[1]]}}}", text)
        text = _SYSTEM.sub(r"\\begin{cases}\1\\end{cases}", text)
        text = _UNIT_FRACTION.sub(r"\\text{ \1/\2}", text)
        text = _BINOMIALS.sub(r"\\binom", _FRACTIONS.sub(r"\\frac", text))
    return _spaced(text).replace("**", "^").strip()


def _with_primes(text: str) -> str:
    """Feet and inches, or minutes and seconds of arc, as units."""
    primed = _PRIMES.sub(lambda m: "'" * m[0].count("prime"), text)
    angle = _SEXAGESIMAL.fullmatch(primed.strip())
    if angle is not None:
        return rf"({angle[1]}+\frac{{{angle[2]}}}{{60}}+\frac{{{angle[3] or 0}}}{{3600}})^\circ"
    found = _FEET.fullmatch(primed.strip())
    if found is None:
        return text
    feet, more, inches = found.groups()
    if feet is None:
        return rf"{inches} \text{{ in}}"
    return rf"{feet} \text{{ ft}}" + (rf" {more} \text{{ in}}" if more else "")


def undress(answer: str) -> str:
    """Without the punctuation and the delimiters of math and emphasis around it."""
    text = answer.strip()
    for _ in range(6):
        before = text
        text = _without_stop(text)
        for left, right in _DELIMITERS:
            if text.startswith(left) and text.endswith(right) and len(text) >= len(left) + len(right):
                inner = text[len(left) : len(text) - len(right)]
                if left not in inner and not inner.endswith("\\"):
                    text = inner.strip()
        if text == before:
            break
    return text


def words_of(text: str) -> str:
    """The words of a plain-text answer: case, articles, punctuation and `\\text{}` away."""
    plain = _WHOLE_TEXT.sub(r" \1 ", text)
    plain = re.sub(r"[\\{}$\"'.,;:!?()\[\]_-]+", " ", plain).casefold()
    parts = plain.split()
    while len(parts) > 1 and parts[0] in ("the", "a", "an"):
        parts.pop(0)
    return " ".join(parts)


def _to_latex(text: str) -> str:
    text = _RAISED.sub(lambda m: "^{" + unicodedata.normalize("NFKC", m[0]) + "}", text)
    text = _LOWERED.sub(lambda m: "_{" + unicodedata.normalize("NFKC", m[0]) + "}", text)
    text = _VULGAR.sub(_vulgar, text)
    return unicodedata.normalize("NFKC", text.translate(_TRANSLATION)).translate(_TRANSLATION)


def _vulgar(match: re.Match[str]) -> str:
    above, _, below = unicodedata.normalize("NFKC", match[0]).partition("\N{FRACTION SLASH}")
    return rf"\frac{{{above}}}{{{below}}}"


def _unwrap(text: str) -> str:
    """The answer inside boxes, delimiters, and a lead such as "the answer is"."""
    for _ in range(4):
        before = text
        text = undress(text)
        for lead in (_LEAD, _TEXT_LEAD):
            found = lead.match(text)
            text = text[found.end() :] if found else text
        box = _BOX.match(text)
        if box and text.endswith("}") and "{" not in text[box.end() : -1].replace(r"\{", ""):
            text = text[box.end() : -1]
        elif box and text.endswith("}"):
            text = text[box.end() - 1 :]
            text = text[1:-1] if _closes_at_end(text) else text
        if text == before:
            break
    return text


def _closes_at_end(text: str) -> bool:
    depth = 0
    for place, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return place == len(text) - 1
    return False


def _without_stop(text: str) -> str:
    text = text.strip()
    while text and text[-1] in ".,;:" and not text.endswith(("..", "\\,", "\\;", "\\:", "\\.")):
        text = text[:-1].rstrip()
    return text


def _without_dollars(text: str) -> str:
    """A lone dollar sign at a number is money; others are delimiters that lost their partners."""
    if "$" not in text:
        return text
    bare = _BARE_DOLLAR.findall(text)
    if len(bare) == 1 and _MONEY.search(text):
        return _BARE_DOLLAR.sub(r"\\$", text)
    return _BARE_DOLLAR.sub(" ", text)


def _spaced(text: str) -> str:
    return _SPACES.sub(lambda m: m[1] or " ", text)


def without_text_commands(text: str) -> str:
    """`text` with the content of `\\text{...}` and its kin in their place."""
    return _WHOLE_TEXT.sub(r" \1 ", text) if "\\" in text else text
