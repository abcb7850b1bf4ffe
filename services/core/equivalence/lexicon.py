"""The words that answers are written with: functions, constants, relations, separators. Tables only."""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Functions of one argument that need no brackets around it.
FUNCTIONS = _set(
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc asin acos atan sinh cosh tanh coth "
    "sech csch arcsinh arccosh arctanh ln log lg exp cis det tr deg dim arg sgn sign Re Im"
)
# Functions of several arguments, which need them.
LISTED = _set("gcd lcm max min mod floor ceil abs cbrt sqrt root binom")
ALIASES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "sign": "sgn", "lb": "log"}
INVERSES = {name: f"arc{name}" for name in _set("sin cos tan cot sec csc sinh cosh tanh")}

CONSTANTS = {"pi": "π", "infty": "∞", "infinity": "∞", "oo": "∞", "inf": "∞"}
GREEK = _set(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho "
    "varrho sigma varsigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma "
    "Upsilon Phi Psi Omega ell hbar aleph partial nabla"
)
GREEK_ALIASES = {"varepsilon": "epsilon", "vartheta": "theta", "varphi": "phi", "varrho": "rho", "varsigma": "sigma"}

RELATIONS = {
    "=": "=", "<": "<", ">": ">", "le": "<=", "leq": "<=", "leqslant": "<=", "leqq": "<=", "ge": ">=", "geq": ">=",
    "geqslant": ">=", "geqq": ">=", "lt": "<", "gt": ">", "ne": "!=", "neq": "!=", "approx": "~", "simeq": "~",
    "doteq": "~", "in": "in", "isin": "in", "equiv": "mod", "colon": ":",
    # Both sides stand for themselves; the relation has no arithmetic here.
    "notin": "notin", "subset": "subset", "subseteq": "subset=", "cong": "cong", "sim": "sim", "parallel": "parallel",
    "perp": "perp", "to": "to", "rightarrow": "to", "mapsto": "to", "Rightarrow": "implies", "implies": "implies",
    "propto": "propto", "mid": "|",
}  # fmt: skip
SEPARATORS = {"and": "and", "or": "or", "land": "and", "wedge": "and", "lor": "or", "vee": "or"}
TEXT_COMMANDS = _set("text textbf textit textrm textnormal textsf texttt textsc mbox hbox emph textup")
# Upright letters: a symbol when single, a word when more.
UPRIGHT = _set("mathrm mathbf mathit mathsf mathtt boldsymbol bm operatorname mathcal mathscr mathfrak")
ACCENTS = _set("overline bar vec hat widehat tilde widetilde dot ddot overrightarrow")
PREFIXED = _set("angle triangle measuredangle odot square parallelogram arc overarc")
BIG_OPERATORS = _set("sum prod int oint iint lim limsup liminf bigcup bigcap")
ENVIRONMENTS = _set("pmatrix bmatrix matrix Bmatrix vmatrix Vmatrix smallmatrix array cases aligned")

CURRENCY_CODES = frozenset(("usd", "eur", "gbp", "cny", "rmb"))
# Words that add nothing to the value before or after which they stand.
FILLERS = _set(
    "approximately about exactly only roughly is are the equals there answer total of value area volume perimeter"
)
_ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMBER_WORDS = {
    **{word: n for n, word in enumerate(_ONES.split())},
    **{word: 10 * n for n, word in enumerate(_TENS.split(), start=2)},
}
# Short words that would otherwise read as products of letters.
SHORT_WORDS = _set(
    "no on yes odd even the and not for are all any one two six ten men day days none both only red blue "
    "true false mon tue wed thu fri sat sun jan feb mar apr may jun jul aug sep oct nov dec am pm if is "
    "of to by as at in it up tie win big old new low high cat dog bob ann amy tom tim sam joe jim dan ben "
    "kim left mod per"
)
EMPTY = frozenset(
    ("no solution", "no solutions", "none", "no real solution", "no real solutions", "empty set", "empty", "null set",
     "no such", "emptyset", "varnothing", "no values", "no value", "no real roots", "no roots", "nothing")
)  # fmt: skip
UNDEFINED = frozenset(("undefined", "dne", "does not exist", "not defined", "doesnt exist", "doesn t exist"))
ALL_REALS = frozenset(
    ("all real numbers", "all reals", "real numbers", "all real", "reals", "all real x", "any real number")
)
INFINITE = frozenset(("infinity", "infinite", "infinitely many", "infinitely many solutions"))
