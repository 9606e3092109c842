#!/usr/bin/env python3
"""Make the test vectors of crates/flopwise-formats.

    python tools/make_format_vectors.py OUT [SECTION ...] [--check VECTORS] [--held-out FILE]

OUT is the output folder; the sections are p3109, exact, blocks, casts (default: all). `--check` names
`vectors.json.gz` and compares everything the reference arithmetic below gives with it (and with NumPy and Python);
`--held-out` also writes a large JSON file of GGUF blocks that the project does not keep.

Needs Python 3.11 with numpy 2.4.6, ml_dtypes 0.6.0, gfloat 0.5.2, gguf 0.19.0 and onnx 1.23.2. Two systems of casts are
run beforehand, each in an environment that has them, and handed to it as parts:

    python tools/make_format_vectors.py PARTS torch-casts                       # torch 2.15 and torch 2.9.1 (CPU)
    python tools/make_format_vectors.py PARTS cuda-casts --cuda-include DIR     # headers of CUDA 13.2, g++
    python tools/make_format_vectors.py OUT casts --part PARTS/casts-torch-2.15.0.json --part ...

Output is reproducible: fixed seeds, compact JSON, gzip without a time stamp.

The truth in p3109, exact and the MX part of blocks is this file's own arithmetic with `fractions.Fraction`: an input is
an exact rational, rounded once. The GGUF part of blocks is what the gguf package does, casts is what each system does.
"""

import argparse
import gzip
import json
import math
import random
import re
import struct
import sys
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np

# ---------------------------------------------------------------------------------------------------------------------
# Formats and exact conversion


class Fmt:
    """One floating-point format: `bits` wide, `e` exponent and `m` significand field bits.

    A code is a sign bit (when signed) above a magnitude. The magnitudes 0..=max_mag are the finite values in order;
    `inf` is the magnitude of infinity or None. NaN are the codes in `nans` and the magnitudes from `nan_from` on.
    """

    def __init__(self, name, e, m, bias=None, inf=None, max_mag=None, nans=(), nan_from=None, signed=True,
                 neg_zero=True, zero=True, bits=None, overflow_to_max=False, fnuz=False):
        self.name, self.e, self.m = name, e, m
        self.bias = 2 ** (e - 1) - 1 if bias is None else bias
        self.mag_bits = e + m
        self.signed = signed
        self.bits = bits or e + m + signed
        self.inf, self.max_mag, self.nans, self.nan_from = inf, max_mag, frozenset(nans), nan_from
        self.has_nan = bool(nans) or nan_from is not None
        self.neg_zero = neg_zero and signed
        self.zero = zero  # False: E8M0, whose code 0 is a normal power of two
        self.overflow_to_max = overflow_to_max  # P3109 formats of the finite domain
        self.fnuz = fnuz

    @property
    def sign_bit(self):
        return 1 << (self.bits - 1)

    @property
    def digits(self):
        return (self.bits + 3) // 4

    def hex(self, code):
        return code if code == "nan" else f"0x{code:0{self.digits}x}"

    def magnitude(self, mag):
        """The value of a finite magnitude (also past max_mag, as if the exponent range had no end)."""
        field, frac = mag >> self.m, mag & ((1 << self.m) - 1)
        if not self.zero:
            return pow2(mag - self.bias)
        if field == 0:
            return frac * pow2(1 - self.bias - self.m)
        return ((1 << self.m) + frac) * pow2(field - self.bias - self.m)

    def decode(self, code):
        """(negative, value) with value a Fraction, "inf" or "nan"."""
        negative = self.signed and bool(code & self.sign_bit)
        mag = code & ((1 << self.mag_bits) - 1)
        if code in self.nans or (self.nan_from is not None and mag >= self.nan_from):
            return False, "nan"
        if mag == self.inf:
            return negative, "inf"
        return negative, self.magnitude(mag)

    def min_normal(self):
        return pow2(1 - self.bias) if self.zero else pow2(-self.bias)

    def code(self, negative, mag):
        if mag == 0 and self.zero and not self.neg_zero:
            return 0
        return mag | (self.sign_bit if negative and self.signed else 0)


def pow2(n):
    return Fraction(1 << n) if n >= 0 else Fraction(1, 1 << -n)


def log2_floor(x):
    """floor(log2(x)) of a positive Fraction, exactly."""
    n = x.numerator.bit_length() - x.denominator.bit_length()
    return n if x >= pow2(n) else n - 1


def spec(e, m, bias=None, inf="ieee", nan="ieee", name=None):
    """A signed format spelled fp(e,m,bias=..,inf=ieee|none|top,nan=ieee|none|all-ones|negative-zero).

    `top`: the largest magnitude that is not NaN is infinity.
    """
    top = (1 << (e + m)) - 1
    ieee_top = ((1 << e) - 1) << m
    sign = 1 << (e + m)
    if (inf == "ieee") != (nan == "ieee") and not (m == 0):
        raise ValueError("ieee infinity and ieee NaN come together")
    if nan == "ieee":
        nans, nan_from = set(), (ieee_top + 1 if m else None)
    elif nan == "all-ones":
        nans, nan_from = set(), top
    elif nan == "negative-zero":
        nans, nan_from = {sign}, None
    else:
        nans, nan_from = set(), None
    highest = top - (nan == "all-ones")
    if inf == "ieee":
        infinity, largest = ieee_top, ieee_top - 1
    elif inf == "top":
        infinity, largest = highest, highest - 1
    else:
        infinity, largest = None, highest
    return Fmt(name or f"fp({e},{m})", e, m, bias, infinity, largest, nans, nan_from,
               neg_zero=nan != "negative-zero", fnuz=inf == "none" and nan == "negative-zero")


def p3109(k, p, signed, extended):
    name = f"binary{k}p{p}{'s' if signed else 'u'}{'e' if extended else 'f'}"
    if signed:
        top = (1 << (k - 1)) - 1
        return Fmt(name, k - p, p - 1, 1 << (k - p - 1), top if extended else None, top - extended, {1 << (k - 1)},
                   neg_zero=False, overflow_to_max=not extended)
    top = (1 << k) - 2
    return Fmt(name, k - p + 1, p - 1, 1 << (k - p), top if extended else None, top - extended, {(1 << k) - 1},
               signed=False, overflow_to_max=not extended)


def named(name, e, m, **kw):
    return spec(e, m, name=name, **kw)


FNUZ = dict(inf="none", nan="negative-zero")
FORMATS = {
    f.name: f
    for f in [
        named("fp64", 11, 52), named("fp32", 8, 23), named("tf32", 8, 10), named("bf16", 8, 7), named("fp16", 5, 10),
        named("e4m3", 4, 3), named("e4m3fn", 4, 3, inf="none", nan="all-ones"), named("e4m3fnuz", 4, 3, bias=8, **FNUZ),
        named("e4m3b11fnuz", 4, 3, bias=11, **FNUZ), named("e5m2", 5, 2), named("e5m2fnuz", 5, 2, bias=16, **FNUZ),
        named("e3m4", 3, 4), named("e2m3", 2, 3, inf="none", nan="none"), named("e3m2", 3, 2, inf="none", nan="none"),
        named("e2m1", 2, 1, inf="none", nan="none"),
        Fmt("e8m0", 8, 0, 127, None, 0xFE, {0xFF}, signed=False, zero=False),
        Fmt("ue4m3", 4, 3, 7, None, 0x7E, {0x7F, 0xFF}, signed=False, bits=8),
        Fmt("ue5m3", 5, 3, 15, None, 0xFE, {0xFF}, signed=False),
        spec(6, 9, name="fp(6,9)"),
        spec(5, 2, 10, "none", "all-ones", name="fp(5,2,bias=10,inf=none,nan=all-ones)"),
        spec(3, 0, name="fp(3,0)"),
        spec(4, 3, 8, "top", "negative-zero", name="fp(4,3,bias=8,inf=top,nan=negative-zero)"),
        spec(2, 5, None, "none", "none", name="fp(2,5,inf=none,nan=none)"),
        spec(3, 3, None, "top", "all-ones", name="fp(3,3,inf=top,nan=all-ones)"),
        spec(7, 20, -3, "none", "negative-zero", name="fp(7,20,bias=-3,inf=none,nan=negative-zero)"),
    ]
}
P3109 = [p3109(k, p, s, x) for k in range(3, 9) for s in (True, False) for p in range(1, k + (not s))
         for x in (True, False)]
FORMATS.update({f.name: f for f in P3109})

ROUNDINGS = ("nearest-even", "nearest-away", "toward-zero", "up", "down", "odd")
OVERFLOWS = ("overflow", "saturate", "saturate-propagate", "onnx")


def round_magnitude(fmt, x, negative, rounding):
    """The magnitude nearest to x > 0 with an exponent range that has no upper end (E8M0: no lower end either)."""
    low = log2_floor(x)
    first = 1 - fmt.bias if fmt.zero else -fmt.bias  # exponent of the first binade
    if fmt.zero:
        exponent = max(low, first)
        n = x / pow2(exponent - fmt.m)
        whole = n.numerator // n.denominator
        rest = n - whole
        mag = ((exponent - first) << fmt.m) + whole
    else:
        mag = low - first
        rest = x / pow2(low) - 1  # in 0..1, of a step as large as the value itself
    if rest == 0:
        return mag, True
    if rounding == "nearest-even":  # ties go to the even code, also where there are no significand bits
        up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and mag % 2 == 1)
    elif rounding == "nearest-away":
        up = rest >= Fraction(1, 2)
    elif rounding == "nearest-up-e8m0":  # ml_dtypes, PyTorch: ties away, for comparison only
        up = rest >= Fraction(1, 2)
    elif rounding == "odd":
        up = mag % 2 == 0
    else:
        up = rounding == ("down" if negative else "up")
    return mag + up, False


def convert(fmt, negative, value, rounding="nearest-even", overflow="overflow", subnormals="on"):
    """(code or "nan" or None, flags): one conversion. `value` is a Fraction >= 0, "inf" or "nan"; None: no such code.

    Rules beyond IEEE 754:
    - Overflow is decided after rounding with no upper exponent limit. A rounding that goes towards zero there
      (toward-zero, `up` of a negative, `down` of a positive value) gives the largest finite value instead.
    - Odd above the largest finite value: that value if its code is odd; otherwise it overflows, since the odd
      neighbour is what lies above (infinity in P3109, NaN in E4M3FN).
    - An infinite input ignores the rounding. It sets overflow and inexact exactly when the result is not infinity.
    - overflow: infinity if there is one, else NaN, else (and for the finite P3109 formats: OvfInf of the 2025 draft;
      SatNone of July 2026 gives NaN) the largest value.
    - saturate: the largest finite value, also for infinity. saturate-propagate: infinity stays if the format has it.
      onnx: as saturate, but infinity becomes NaN in the FNUZ formats.
    - Unsigned formats, negative input: what rounds to zero is zero (if there is one), otherwise `overflow` gives NaN
      and the saturating conventions give code 0, also for -infinity; flags inexact and overflow.
    - E8M0: zero, negative and what is below 2^-127 after rounding: `overflow` NaN, the others code 0. Flags: inexact,
      with underflow when the input is >= 0 and overflow when it is negative.
    - underflow: the result is inexact and smaller than the smallest normal value (tininess after rounding, to the
      format's own spacing). flush: a rounded result that is subnormal becomes zero (inexact, underflow).
      daz: an input below the smallest normal value counts as zero; flags as for flush (none for zero itself).
    """
    if value == "nan":
        return ("nan" if fmt.has_nan else None), []
    saturating = overflow != "overflow"

    def nan(flags):
        return ("nan" if fmt.has_nan else None), flags

    def beyond(inexact_flags):
        """What lies above the largest finite value, of either sign."""
        if negative and not fmt.signed:
            return (fmt.code(False, 0), inexact_flags) if saturating else nan(inexact_flags)
        if not saturating and not fmt.overflow_to_max:
            if fmt.inf is not None:
                return fmt.code(negative, fmt.inf), inexact_flags
            if fmt.has_nan:
                return nan(inexact_flags)
        return fmt.code(negative, fmt.max_mag), inexact_flags

    if value == "inf":
        keeps = overflow in ("overflow", "saturate-propagate") and fmt.inf is not None and (fmt.signed or not negative)
        if keeps:
            return fmt.code(negative, fmt.inf), []
        flags = ["inexact", "overflow"]
        if overflow == "onnx" and fmt.fnuz:
            return nan(flags)
        return beyond(flags)

    if not fmt.zero and (value == 0 or negative):
        flags = ["inexact", "overflow" if negative and value else "underflow"]
        return (0, flags) if saturating else nan(flags)
    if value == 0:
        return fmt.code(negative, 0), []
    if subnormals == "daz" and value < fmt.min_normal():
        return fmt.code(negative, 0), ["inexact", "underflow"]

    mag, exact = round_magnitude(fmt, value, negative, rounding)
    if mag < 0:
        flags = ["inexact", "underflow"]
        return (0, flags) if saturating else nan(flags)
    if negative and not fmt.signed:
        if mag == 0:
            return 0, ["inexact", "underflow"]
        return beyond(["inexact", "overflow"])
    if mag > fmt.max_mag:
        flags = ["inexact", "overflow"]
        inward = rounding == "toward-zero" or rounding == ("up" if negative else "down")
        if inward or (rounding == "odd" and fmt.max_mag % 2 == 1):
            return fmt.code(negative, fmt.max_mag), flags
        return beyond(flags)
    tiny = fmt.zero and mag < (1 << fmt.m)
    if subnormals == "flush" and tiny and mag:
        return fmt.code(negative, 0), ["inexact", "underflow"]
    flags = [] if exact else (["inexact", "underflow"] if tiny else ["inexact"])
    return fmt.code(negative, mag), flags


LIMIT = 20_000  # decimal exponents beyond this are past every format; more would only cost memory


def parse(text):
    """(negative, value) of a decimal, hexadecimal float, ratio, inf or nan."""
    negative = text.startswith("-")
    body = text.lstrip("+-")
    if body in ("inf", "nan"):
        return negative, body
    if "/" in body:
        a, b = body.split("/")
        return negative, Fraction(int(a), int(b))
    if body.startswith("0x"):
        digits, _, exponent = body[2:].partition("p")
        whole, _, frac = digits.partition(".")
        return negative, int(whole + frac or "0", 16) * pow2(int(exponent or 0) - 4 * len(frac))
    digits, _, exponent = body.partition("e")
    whole, _, frac = digits.partition(".")
    n = int(whole + frac)
    ten = int(exponent or 0) - len(frac)
    if n == 0:
        return negative, Fraction(0)
    ten = max(-LIMIT, min(LIMIT, ten))
    return negative, n * Fraction(10) ** ten


# ---------------------------------------------------------------------------------------------------------------------
# Bits


def f64_bits(x):
    return struct.unpack("<Q", struct.pack("<d", x))[0]


def f32_of(bits):
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def value_of_f64_bits(bits):
    return FORMATS["fp64"].decode(bits)


def value_of_f32_bits(bits):
    return FORMATS["fp32"].decode(bits)


def code_to_f64_bits(fmt, code):
    """The value of a code as f64 bits; "nan" for every NaN. Every format here fits f64 exactly."""
    negative, value = fmt.decode(code)
    if value == "nan":
        return "nan"
    if value == "inf":
        return f64_bits(-math.inf if negative else math.inf)
    out, flags = convert(FORMATS["fp64"], negative, value)
    assert not flags, (fmt.name, code)
    return out


def write(path, data):
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True).encode()
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        file.write(text)
    print(f"{path}: {Path(path).stat().st_size} bytes, {len(text)} unpacked")


# ---------------------------------------------------------------------------------------------------------------------
# p3109.json.gz


def make_p3109(out):
    from gfloat import decode_float
    from gfloat.formats import format_info_p3109
    from gfloat.types import Domain, Signedness

    tables, wrong = {}, 0
    for k in range(3, 9):
        for signed in (True, False):
            for p in range(1, k + (not signed)):
                for extended in (True, False):
                    info = format_info_p3109(k, p, Signedness.Signed if signed else Signedness.Unsigned,
                                             Domain.Extended if extended else Domain.Finite)
                    fmt = FORMATS[f"binary{k}p{p}{'s' if signed else 'u'}{'e' if extended else 'f'}"]
                    values = []
                    for code in range(1 << k):
                        x = decode_float(info, code).fval
                        bits = "nan" if math.isnan(x) else f64_bits(float(x))
                        wrong += bits != code_to_f64_bits(fmt, code)
                        values.append(bits if bits == "nan" else f"0x{bits:016x}")
                    tables[fmt.name] = values
    print(f"p3109: {len(tables)} formats, {sum(map(len, tables.values()))} codes, gfloat != own: {wrong}")
    assert not wrong
    write(out / "p3109.json.gz", {"source": "gfloat 0.5.2", "formats": tables})


# ---------------------------------------------------------------------------------------------------------------------
# exact.json.gz


def decimal(x):
    """The exact decimal expansion of a dyadic Fraction."""
    k = x.denominator.bit_length() - 1
    digits = str(x.numerator * 5**k)
    if k == 0:
        return digits
    digits = digits.rjust(k + 1, "0")
    return f"{digits[:-k]}.{digits[-k:]}"


def scientific(x, digits):
    """x > 0 to so many significant digits (truncated: the text is an input, not a result)."""
    ten = 0
    while Fraction(10) ** (ten + 1) <= x:
        ten += 1
    while Fraction(10) ** ten > x:
        ten -= 1
    whole = str(int(x / Fraction(10) ** (ten - digits + 1)))
    return f"{whole[0]}.{whole[1:] or '0'}e{ten}"


def hexadecimal(x):
    n, k = x.numerator, x.denominator.bit_length() - 1
    low = log2_floor(x)
    frac = x / pow2(low) - 1
    out = ""
    while frac:
        frac *= 16
        out += f"{int(frac):x}"
        frac -= int(frac)
    return f"0x1{'.' + out if out else ''}p{low:+d}" if low % 2 else f"0x1{'.' + out if out else ''}p{low}"


FIXED = ["0", "-0", "inf", "-inf", "nan", "0.052", "-0.052", "1", "-1", "0.1", "1e-400", "-1e-400", "1e400", "-1e400",
         "1e-99999999999", "-1e-99999999999", "1e+99999999999", "-1e+99999999999", "1/3", "-7/3", "22/7", "-1/1024",
         "0x1.a9fbe7p-5", "-0x1.a9fbe7p-5", "0x0.0000000000000000000000000000000000000001p+40", "0x1p-1074",
         "0x1.fffffffffffffffffffffffffffffffp0", "3.14159265358979323846264338327950288419716939937510",
         "1000000/1000001", "123456789012345678901234567890", "1.5", "-1.5", "2.5e-1", "464", "-464", "464.00003",
         "448",
         "465", "480", "240", "248", "65504", "65519.99999", "65520", "61440", "57344", "3.4028235e38",
         "340282356779733661637539395458142568448", "7", "6.999", "28", "30", "7.5", "7.75", "1.1754943508222875e-38",
         "4.9e-324", "2.4703282292062327208e-324", "1.7976931348623157e308", "1.7976931348623159e308", "00012.500"]


def interesting(fmt, rng):
    """Texts near the places where this format can go wrong."""
    out = []
    top, first = fmt.max_mag, 1 << fmt.m
    mags = {0, 1, 2, 3, first - 2, first - 1, first, first + 1, top - 2, top - 1, top, top + 1, top + 2}
    mags |= {rng.randrange(top) for _ in range(14)}
    if fmt.bits <= 6:
        mags |= set(range(top + 2))
    for mag in sorted(m for m in mags if m >= 0):
        a, b = fmt.magnitude(mag), fmt.magnitude(mag + 1)
        middle = (a + b) / 2
        gap = b - a
        options = [a, middle, a + gap / 4, a + 3 * gap / 4]
        for x in options:
            if x == 0:
                continue
            sign = rng.choice(["", "-"])
            exact = decimal(x)
            kind = rng.randrange(6)
            if kind == 0:
                out.append(sign + hexadecimal(x))
            elif kind == 1:  # one digit far out
                tail = "0" * rng.choice([3, 40, 400])
                point = "" if "." in exact else "."
                out.append(f"{sign}{exact}{point}{tail}1")
            elif kind == 2:  # just below
                nearby = x - Fraction(1, 10 ** rng.choice([60, 400])) * gap
                out.append(sign + hexadecimal(x - gap * pow2(-rng.choice([53, 60, 200])))
                           if rng.random() < 0.5 else f"{sign}{nearby.numerator}/{nearby.denominator}")
            elif kind == 3:
                out.append(sign + scientific(x, rng.choice([1, 3, 9, 17, 40])))
            elif kind == 4:
                y = x + gap * pow2(-rng.choice([25, 40, 53, 60, 200]))
                out.append(sign + hexadecimal(y))
            else:
                out.append(sign + exact)
    # what a detour through f64 or f32 gets wrong: a midpoint plus less than their spacing
    for _ in range(4):
        mag = rng.randrange(first, max(first + 1, top))
        x = (fmt.magnitude(mag) + fmt.magnitude(mag + 1)) / 2
        for s in (1, -1):
            out.append(hexadecimal(x + s * x * pow2(-rng.choice([30, 54, 55, 70]))))
    return [t for t in out if len(t) < 2500]


def make_exact(out):
    rng = random.Random(20261123)
    names = [n for n in FORMATS if not n.startswith("binary")]
    names += ["binary8p3se", "binary8p4se", "binary8p4sf", "binary8p3sf", "binary8p1se", "binary8p1ue", "binary8p1uf",
              "binary8p4ue", "binary8p4uf", "binary8p8uf", "binary8p7sf", "binary8p8ue", "binary3p1se", "binary3p2sf",
              "binary4p2se", "binary5p3se", "binary6p3sf", "binary6p4ue", "binary7p5se", "binary3p3ue"]
    rows, seen = [], set()

    def add(fmt, text, rounding, overflow, subnormals):
        name = fmt.name
        key = (fmt.name, text, rounding, overflow, subnormals)
        if key in seen:
            return
        negative, value = parse(text)
        code, flags = convert(fmt, negative, value, rounding, overflow, subnormals)
        if code is None:
            return
        if name.startswith("binary") and not fmt.signed and negative and code == "nan" and value != "nan":
            return  # P3109 drafts differ: 0 under OvfInf (2025), NaN under SatNone (July 2026)
        seen.add(key)
        rows.append([*key, fmt.hex(code), flags])

    for name in names:
        fmt = FORMATS[name]
        wide = not name.startswith("binary")
        overflows = [o for o in OVERFLOWS if o != "onnx" or (fmt.signed and wide)]
        texts = interesting(fmt, rng)
        plain = [t for t in texts if len(t) < 120]
        for text in FIXED:
            add(fmt, text, "nearest-even", "overflow", "on")
        for text in texts:
            add(fmt, text, "nearest-even", "overflow", "on")
        for text in rng.sample(FIXED, 14) + ["inf", "-inf", "0", "-0", "1e400", "-1e400", "-1"]:
            for overflow in overflows[1:]:
                add(fmt, text, "nearest-even", overflow, "on")
        for _ in range(90 if wide else 45):
            text = rng.choice(plain if rng.random() < 0.7 else FIXED)
            add(fmt, text, rng.choice(ROUNDINGS), rng.choice(overflows), "on")
        above = [fmt.magnitude(fmt.max_mag + 1), (fmt.magnitude(fmt.max_mag) + fmt.magnitude(fmt.max_mag + 1)) / 2]
        for x in above:
            for rounding in ROUNDINGS:
                for sign in ("", "-"):
                    add(fmt, sign + hexadecimal(x), rounding, rng.choice(overflows), "on")
                    add(fmt, sign + hexadecimal(x), rounding, "overflow", "on")
        if fmt.zero and fmt.m:
            low, step = fmt.min_normal(), fmt.magnitude(1)
            for x in (low, low - step / 2, low - step / 4, low - step, step, step / 2, step / 4, low * Fraction(2, 3)):
                for mode in ("flush", "daz"):
                    sign = rng.choice(["", "-"])
                    text = f"{sign}{x.numerator}/{x.denominator}"
                    add(fmt, text, "nearest-even", "overflow", mode)
                    add(fmt, text, rng.choice(ROUNDINGS), rng.choice(overflows), mode)
            add(fmt, "-0", "nearest-even", "overflow", "daz")
            add(fmt, "0", "nearest-even", "overflow", "flush")
    modes = {k: sum(r[i] == k for r in rows) for i, ks in ((2, ROUNDINGS), (3, OVERFLOWS), (4, ("on", "flush", "daz")))
             for k in ks}
    print(f"exact: {len(rows)} rows, {len(names)} formats, {modes}")
    write(out / "exact.json.gz", {
        "columns": ["format", "input", "rounding", "overflow", "subnormals", "code", "flags"],
        "rows": rows,
    })


# ---------------------------------------------------------------------------------------------------------------------
# The check of the arithmetic above


OLD_NAMES = {"f32": "fp32", "tf32": "tf32", "bf16": "bf16", "f16": "fp16", "f8_e8m0fnu": "e8m0", "f6_e2m3fn": "e2m3",
             "f6_e3m2fn": "e3m2", "f4_e2m1fn": "e2m1", "p3109_k8p3se": "binary8p3se", "p3109_k8p4se": "binary8p4se"}


def check(path):
    data = json.load(gzip.open(path))
    fmt_of = lambda name: FORMATS[OLD_NAMES.get(name, name.removeprefix("f8_"))]
    wrong, count, skipped = [], 0, 0

    def compare(where, fmt, got, want):
        nonlocal count
        count += 1
        got = got if got in ("nan", None) else fmt.hex(got)
        if got != want:
            wrong.append((where, got, want))

    for name, table in data["decode"].items():
        for code, want in enumerate(table["f64_bits"]):
            got = code_to_f64_bits(fmt_of(name), code)
            count += 1
            ok = (got if got == "nan" else f"0x{got:016x}") == want
            ok or wrong.append((name, code, got, want))
    for name, tables in data["convert"].items():
        fmt = fmt_of(name)
        for source, rows in tables.items():
            for bits, *wants in rows:
                negative, value = (value_of_f64_bits if source == "from_f64" else value_of_f32_bits)(int(bits, 16))
                lossy = not fmt.has_nan and fmt.inf is None
                for i, want in enumerate(wants):
                    overflow = ("overflow", "saturate")[i % 2]
                    rounding = "nearest-even" if i < 2 else "nearest-up-e8m0"
                    got, flags = convert(fmt, negative, value, rounding, overflow)
                    if want is None:  # the vectors leave overflow and NaN open where the format has neither
                        skipped += 1
                        ok = lossy and (value in ("nan", "inf") or "overflow" in flags)
                        ok or wrong.append((name, source, bits, got, want))
                        continue
                    compare((name, source, bits, i), fmt, got, want)
    modes = dict(zip(("rne", "rna", "rtz", "rtp", "rtn", "odd"),
                     ("nearest-even", "nearest-away", "toward-zero", "up", "down", "odd")))
    open_odd = {}
    for name, table in data["rounding_modes"].items():
        fmt = fmt_of(name)
        for row in table["rows"]:
            negative, value = value_of_f64_bits(int(row[0], 16))
            for column, want in zip(table["columns"][1:], row[1:]):
                got, flags = convert(fmt, negative, value, modes[column])
                if want is None:
                    skipped += 1
                    key = (name, column, "nan" if got == "nan" else fmt.hex(got) if got is not None else None)
                    open_odd[key] = open_odd.get(key, 0) + 1
                    continue
                compare((name, column, row[0]), fmt, got, want)
    print(f"vectors: {count} compared, {len(wrong)} wrong, {skipped} open (null); null rounding modes: {open_odd}")
    for w in wrong[:10]:
        print("  ", w)

    rng = random.Random(7)
    bad = total = 0
    for _ in range(20000):
        kind = rng.randrange(3)
        if kind == 0:
            text = f"{rng.randrange(10**17)}e{rng.randrange(-345, 300)}"
        elif kind == 1:
            text = f"{rng.random()!r}"
        else:
            mag = rng.randrange(FORMATS["fp64"].max_mag)
            text = scientific((FORMATS["fp64"].magnitude(mag) + FORMATS["fp64"].magnitude(mag + 1)) / 2,
                              rng.choice([17, 30, 800]))
        code, _ = convert(FORMATS["fp64"], *parse(text))
        total += 1
        bad += code != f64_bits(float(text))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sources = np.array([rng.getrandbits(64) for _ in range(20000)], dtype=np.uint64)
        near16 = np.array([f64_bits(rng.choice([-1, 1]) * rng.uniform(0.4, 2.2) * 2.0 ** rng.randrange(-26, 17))
                           for _ in range(20000)], dtype=np.uint64)
        near32 = np.array([f64_bits(rng.choice([-1, 1]) * rng.uniform(0.4, 2.2) * 2.0 ** rng.randrange(-151, 129))
                           for _ in range(20000)], dtype=np.uint64)
        for bits in (sources, near16, near32):
            for target, dtype, view in (("fp16", np.float16, np.uint16), ("fp32", np.float32, np.uint32)):
                want = bits.view(np.float64).astype(dtype)
                for b, w, nan in zip(bits.tolist(), want.view(view).tolist(), np.isnan(want).tolist()):
                    code, _ = convert(FORMATS[target], *value_of_f64_bits(b))
                    total += 1
                    bad += code != ("nan" if nan else w)
    print(f"Python float() and NumPy f16, f32: {total} compared, {bad} wrong")
    return len(wrong) + bad


# ---------------------------------------------------------------------------------------------------------------------
# blocks.json.gz: MX and NVFP4, exact

# element format, largest exponent, significand bits, largest value
MX = {"mxfp8_e4m3": ("e4m3fn", 8, 3, 448), "mxfp8_e5m2": ("e5m2", 15, 2, 57344),
      "mxfp6_e2m3": ("e2m3", 2, 3, Fraction(15, 2)), "mxfp6_e3m2": ("e3m2", 4, 2, 28), "mxfp4_e2m1": ("e2m1", 2, 1, 6),
      "mxint8": (None, 0, 6, Fraction(127, 64))}
MX_MODES = ("floor", "ceil", "even", "rceil")


def round_half_even(x):
    n = x.numerator // x.denominator
    rest = x - n
    return n + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and n % 2 == 1))


def mx_scale(amax, name, mode):
    """The E8M0 code of a block whose largest magnitude is amax >= 0 (finite)."""
    _, emax, mbits, largest = MX[name]
    if amax == 0:
        return 0
    low = log2_floor(amax)
    if mode == "floor":
        k = low - emax
    elif mode == "ceil":
        k = low + (amax != pow2(low)) - emax
    elif mode == "even":  # amax to the element's significand, ties up, then floor
        k = log2_floor(math.floor(amax / pow2(low - mbits) + Fraction(1, 2)) * pow2(low - mbits)) - emax
    else:
        ratio = amax / largest
        low = log2_floor(ratio)
        k = low + (ratio != pow2(low))
    return max(0, min(254, k + 127))


def mx_element(name, negative, value, scale):
    """One element under a given scale: rounded once, to nearest even, saturating."""
    element = MX[name][0]
    if element:
        x = value if value == "inf" else value / pow2(scale - 127)
        return convert(FORMATS[element], negative, x, overflow="saturate")[0]
    if value == "inf":
        n = 1 << 20
    else:
        n = round_half_even(value / pow2(scale - 127) * 64)
    n = max(-128, min(127, -n if negative else n))
    return n & 0xFF


def mx_block(name, bits):
    values = [value_of_f32_bits(b) for b in bits]
    kinds = {v for _, v in values if isinstance(v, str)}
    out = {}
    for mode in MX_MODES:
        if kinds:
            out[mode] = {"e8m0": 255, "codes": None}
        else:
            scale = mx_scale(max(v for _, v in values), name, mode)
            out[mode] = {"e8m0": scale, "codes": [mx_element(name, n, v, scale) for n, v in values]}
    if kinds == {"inf"}:
        out["rceil_te"] = {"e8m0": 254, "codes": [mx_element(name, n, v, 254) for n, v in values]}
    elif kinds:
        out["rceil_te"] = {"e8m0": 255, "codes": None}
    return out


def nvfp4_exact(bits):
    values = [value_of_f32_bits(b) for b in bits]
    amax = max(v for _, v in values)
    s_enc = Fraction(448 * 6) / amax if amax else Fraction(1)
    scales, codes = [], []
    for i in range(0, len(values), 16):
        block = values[i : i + 16]
        scale = convert(FORMATS["e4m3fn"], False, max(v for _, v in block) * s_enc / 6, overflow="saturate")[0]
        value = FORMATS["e4m3fn"].magnitude(scale)
        scales.append(scale)
        codes.append([convert(FORMATS["e2m1"], n, v * s_enc / value if value else Fraction(0), overflow="saturate")[0]
                      for n, v in block])
    return {"scales_e4m3": scales, "codes": codes}


def nvfp4_f32(bits):
    """The same in the order and precision of Transformer Engine's reference: every step rounded to f32."""
    f32 = np.float32
    largest = np.finfo(f32).max
    with np.errstate(all="ignore"):
        values = np.array(bits, dtype=np.uint32).view(f32)
        amax = np.abs(values).max()
        s_enc = f32(448 * 6) / amax if amax else f32(1)
        s_enc = min(s_enc, largest)
        sixth = s_enc * (f32(1) / f32(6))
        scales, codes = [], []
        for i in range(0, len(values), 16):
            block = values[i : i + 16]
            raw = min(f32(np.abs(block).max() * sixth), largest)
            scale = convert(FORMATS["e4m3fn"], False, Fraction(float(raw)), overflow="saturate")[0]
            value = f32(float(FORMATS["e4m3fn"].magnitude(scale)))
            factor = min(f32(s_enc / value), largest) if value else f32(0)
            scales.append(scale)
            row = []
            for x in block:
                y = f32(x * factor)
                v = "inf" if np.isinf(y) else abs(Fraction(float(y)))
                row.append(convert(FORMATS["e2m1"], bool(np.signbit(y)), v, overflow="saturate")[0])
            codes.append(row)
    return {"s_enc_bits": f"0x{int(np.float32(s_enc).view(np.uint32)):08x}", "scales_e4m3": scales, "codes": codes}


def hex32(bits):
    return [f"0x{int(b):08x}" for b in bits]


def check_blocks(path):
    data = json.load(gzip.open(path))
    wrong = []
    for i, block in enumerate(data["mx_blocks"]):
        got = mx_block(block["format"], [int(b, 16) for b in block["f32_bits"]])
        for mode in MX_MODES:
            if got[mode] != block[mode]:
                wrong.append((i, block["format"], mode, got[mode]["e8m0"], block[mode]["e8m0"]))
    for i, tensor in enumerate(data["nvfp4"]):
        bits = [int(b, 16) for b in tensor["f32_bits"]]
        for key, got in (("exact", nvfp4_exact(bits)), ("f32_order", nvfp4_f32(bits))):
            if got != tensor[key]:
                wrong.append((i, "nvfp4", key))
    print(f"MX and NVFP4: {4 * len(data['mx_blocks'])} + {2 * len(data['nvfp4'])} compared, {len(wrong)} wrong")
    for w in wrong[:20]:
        print("  ", w)
    return len(wrong)


def mx_inputs(rng):
    """(label, 32 f32 bit patterns)"""
    bits_of = lambda xs: [int(b) for b in np.array(xs, dtype=np.float32).view(np.uint32)]
    normal = lambda s=1.0: bits_of([rng.gauss(0, 1) * s for _ in range(32)])
    sign = lambda: rng.choice([0, 0x80000000])
    out = [("zero", [0] * 32), ("negative zero", [0x80000000] * 32), ("zero and -0", [0, 0x80000000] * 16)]
    out.append(("subnormal amax", [sign() | rng.randrange(1 << 20) for _ in range(32)]))
    out.append(("smallest subnormal", [sign() | (i % 2) for i in range(32)]))
    out.append(("amax 2^-127", [sign() | 0x00400000] + [sign() | rng.randrange(0x400000) for _ in range(31)]))
    for top in (0x3FFFFFFF, 0x407FFFFF, 0x42FFFFFF, 0x00FFFFFF, 0x7EFFFFFF):
        out.append(("just below a power of two", [top] + [sign() | rng.randrange(top) for _ in range(31)]))
    for m in (0x3FF00000, 0x3FEFFFFF, 0x3FF80000, 0x3FF7FFFF, 0x3FE00000, 0x3FDFFFFF, 0x3FC00000, 0x3FC00001,
              0x3FA00000):
        rest = [sign() | rng.randrange(0x3F000000, m) for _ in range(31)]
        out.append(("amax near a rounding border", [m | 0x80000000, *rest]))
    for m in (448.0, 57344.0, 28.0, 7.5, 6.0, 127 / 64):
        base = bits_of([m])[0]
        for top in (base, base + 1, base - 1):
            out.append(("amax near the largest element", [top] + [sign() | rng.randrange(top) for _ in range(31)]))
    out.append(("2^127", bits_of([2.0**127 * rng.choice([1, -1, 0.5, 0.01]) for _ in range(32)])))
    out.append(("f32 max", [0x7F7FFFFF, 0xFF7FFFFF] * 4 + normal()[:24]))
    out.append(("ties", bits_of([(i - 16) * 0.25 + 0.125 for i in range(32)])))
    out.append(("ties small", bits_of([(i - 16) * 0.03125 for i in range(31)] + [6.0])))
    out.append(("outlier", normal()[:31] + bits_of([1e4])))
    out.append(("tiny", normal(1e-40)))
    out.append(("wide", [sign() | rng.randrange(0x7F000000) for _ in range(32)]))
    out += [("normal", normal(s)) for s in (1, 1e-3, 1e20, 1e-30)]
    return out


def make_blocks(out, held_out):
    rng = random.Random(42)
    mx = []
    inputs = mx_inputs(rng)
    for name in MX:
        for label, bits in inputs:
            mx.append({"format": name, "label": label, "f32_bits": hex32(bits), **mx_block(name, bits)})
    finite = inputs[-1][1][:]
    for name in MX:
        for label, special in (("inf", [0x7F800000]), ("-inf", [0xFF800000]), ("nan", [0x7FC00000]),
                               ("inf and nan", [0xFF800000, 0x7F800001])):
            bits = special + finite[len(special):]
            mx.append({"format": name, "label": label, "f32_bits": hex32(bits), **mx_block(name, bits)})
    nv = []
    zero = [0] * 16
    flat = lambda s: [int(b) for b in np.array([rng.gauss(0, 1) * s for _ in range(16)], np.float32).view(np.uint32)]
    cases = [("zero", zero * 2), ("zero block", zero + flat(1)), ("scale underflow", flat(1e-6) + flat(1)),
             ("subnormal scale", flat(0.004) + flat(0.0005) + flat(1)), ("subnormal input", flat(1e-41) + flat(1e-40)),
             ("large", flat(1e37) + flat(1e36)), ("f32 max", [0x7F7FFFFF] + flat(1e30)[1:]),
             ("outlier", flat(1) + [0x461C4000] + flat(1)[1:]), ("negative zero", [0x80000000] * 16 + flat(1))]
    cases += [("normal", flat(1) + flat(3) + flat(0.2)) for _ in range(12)]
    differ = 0
    for label, bits in cases:
        exact, f32 = nvfp4_exact(bits), nvfp4_f32(bits)
        differ += {k: v for k, v in f32.items() if k in exact} != exact
        nv.append({"label": label, "f32_bits": hex32(bits), "exact": exact, "f32_order": f32})
    print(f"blocks: {len(mx)} MX, {len(nv)} NVFP4 (f32 order differs from exact in {differ})")
    gguf = gguf_blocks(rng, 1)
    write(out / "blocks.json.gz", {"mx": mx, "nvfp4": nv, "gguf": gguf})
    if held_out:
        more = gguf_blocks(random.Random(4711), 20)
        Path(held_out).write_text(json.dumps({"gguf": more}, separators=(",", ":")))
        print(f"{held_out}: {Path(held_out).stat().st_size} bytes")


# ---------------------------------------------------------------------------------------------------------------------
# blocks.json.gz: GGUF


HALF_SCALES = {  # where a block keeps its f16 scales
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": [], "NVFP4": [],
    "TQ1_0": [52], "TQ2_0": [64], "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0],
    "IQ1_S": [0], "IQ1_M": [],
}
QUANTIZES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4")


def gguf_blocks(rng, times):
    from gguf import quants
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    numbers = np.random.default_rng(rng.getrandbits(32))
    out = {}
    for name, scales in HALF_SCALES.items():
        kind = GGMLQuantizationType[name]
        size, width = GGML_QUANT_SIZES[kind]
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            blocks = []
            few = size == 256 and not name.endswith("_K")
            for i in range((8 if few else 12) * times):
                b = bytearray(rng.randbytes(width))
                for at in scales:
                    half = rng.choice([0x2E66, 0x1400, 0x3C00, 0xB555, rng.getrandbits(16)])
                    if i % 5 == 3:
                        half = rng.randrange(1, 0x400) | rng.choice([0, 0x8000])  # subnormal
                    if half & 0x7C00 == 0x7C00:
                        half &= 0xBFFF
                    b[at : at + 2] = half.to_bytes(2, "little")
                if name == "IQ1_M":  # the scale is spread over the top digits of four u16
                    b[55] = (b[55] & 0x0F) | rng.choice([0x00, 0x20, 0x30])
                if name == "MXFP4":
                    b[0] = [0, 1, 2, 126, 127, 128, 253, 254, 255, rng.randrange(256)][min(i, 9)]
                if name == "NVFP4" and i % 4 == 1:
                    b[0:4] = bytes([0, 0x7F, 0x80, 0x01]) if i < 12 else rng.randbytes(4)
                blocks.append(bytes(b))
            blocks.append(bytes(width))
            if name in QUANTIZES:
                data = gguf_data(numbers, size, 1)[:3]
                blocks += [bytes(r) for r in quants.quantize(np.stack([d for _, d in data]), kind)]
            raw = np.frombuffer(b"".join(blocks), np.uint8).reshape(len(blocks), width).copy()
            values = quants.dequantize(raw, kind).reshape(len(blocks), size)
            rows = [[b.hex(), "".join(f"{int(x):08x}" for x in v.view(np.uint32))] for b, v in zip(blocks, values)]
            rows = [r for r in rows if not nan_row(r[1])] if name not in ("MXFP4", "NVFP4") else rows
            entry = {"block": size, "bytes": width, "dequantize": rows}
            if name in QUANTIZES:
                data = gguf_data(numbers, size, times)
                sources = np.stack([d for _, d in data]).astype(np.float32)
                coded = quants.quantize(sources, kind).reshape(len(data), width)
                entry["quantize"] = [
                    ["log2 rounds up" if name == "MXFP4" and log2_rounds_up(s) else label,
                     "".join(f"{int(x):08x}" for x in s.view(np.uint32)), bytes(c).hex()]
                    for (label, _), s, c in zip(data, sources, coded)]
        out[name] = entry
    print("gguf:", {k: (len(v["dequantize"]), len(v.get("quantize", []))) for k, v in out.items()})
    return out


def log2_rounds_up(values):
    """Whether NumPy's f32 log2 takes the largest magnitude for the next power of two (a defect of gguf's MXFP4)."""
    amax = np.abs(values).max()
    return amax > 0 and np.floor(np.log2(amax)) != math.frexp(float(amax))[1] - 1


def nan_row(text):
    return any(int(text[i : i + 8], 16) & 0x7FFFFFFF > 0x7F800000 for i in range(0, len(text), 8))


def gguf_data(numbers, size, times):
    """(label, values): normal, constant, outliers, tiny and huge data."""
    f = np.float32
    n = lambda s=1.0: (numbers.standard_normal(size) * s).astype(f)
    out = [("normal", n()), ("zero", np.zeros(size, f)), ("constant", np.full(size, 0.7, f))]
    for _ in range(times):
        outlier = n()
        outlier[numbers.integers(size)] = 100
        half = n()
        half[: size // 2] = 0
        ties = (numbers.integers(-16, 17, size) / 2).astype(f)
        grid = (numbers.integers(-8, 8, size)).astype(f)
        out += [("negative constant", np.full(size, -3.25, f)), ("outlier", outlier), ("negative outlier", -outlier),
                ("tiny", n(1e-40)), ("small", n(1e-6)), ("small scale", n(1e-4)), ("huge", n(1e30)), ("large", n(1e4)),
                ("half zero", half), ("ties", ties), ("grid", grid), ("uniform", numbers.random(size).astype(f)),
                ("shifted", n() + f(10)), ("below", np.nextafter(ties, f(100))), ("above", np.nextafter(ties, f(-100)))]
        out += [("normal", n(s)) for s in (1, 1, 1, 0.02, 0.02, 0.05, 3)]
        if size == 32:
            out += [("normal", n(s)) for s in (1, 0.02, 0.5, 7, 1)]
            out += [("ternary", numbers.integers(-1, 2, size).astype(f))]
        else:
            out += [("ternary", (numbers.integers(-1, 2, size) * s).astype(f)) for s in (0.6, 1, 0.013, 30, -7)]
    return out


# ---------------------------------------------------------------------------------------------------------------------
# casts.json.gz: what other systems do


def f32_probes():
    rng = random.Random(99)
    xs = [0.0, 448, 449, 463.99997, 464, 464.00003, 465, 479.99997, 480, 480.00003, 512, 1e3, 240, 244, 247.99998, 248,
          248.00002, 249, 57344, 57345, 61439.996, 61440, 61440.004, 65504, 65519, 65519.996, 65520, 65536, 1e5, 1e38,
          3.3895314e38, 3.3961775e38, 3.3961776e38, 3.4e38, 0.052, 0.1, 1 / 3, 1, 1.5, 2, 3, 5, 6, 6.999, 7, 7.25, 7.5,
          7.75, 8, 9, 15.5, 15.75, 16, 17, 28, 29.999, 30, 31, 32, 0.25, 0.125, 0.0625, 0.03125, 0.75, 1.25, 1.75, 2.5,
          3.5, 224, 232, 236, 49152, 53248, 53249, 127, 128, 255, 256]
    xs += [1.5 * 2.0**k for k in (-127, -126, -100, -31, -1, 4, 63, 126, 127)]
    xs += [1.25 * 2.0**k for k in (-126, 3, 127)] + [1.75 * 2.0**k for k in (-126, 3, 127)]
    xs += [2.0**k for k in (-149, -148, -140, -135, -134, -133, -132, -130, -129, -128, -127, -126, -100, 100, 126)]
    xs += [1.1 * 2.0**-127, 1.5 * 2.0**-128, 1e-40, 3e-39, 1e-45]
    xs += [2.0**-k for k in range(6, 28)] + [1.5 * 2.0**-k for k in range(9, 26, 2)]
    xs += [3 * 2.0**-k for k in (10, 11, 16, 17, 25)] + [2.0**-k * 1.0000001 for k in (10, 17, 25)] + [2.0**127]
    xs += [1 + 2.0**-k for k in (3, 4, 5, 8, 9, 11, 12)] + [1 + 3 * 2.0**-k for k in (4, 5, 9, 12)]
    xs += [1 + 2.0**-8 + 2.0**-23, 1 + 2.0**-11 + 2.0**-23, 1 + 2.0**-4 + 2.0**-23, 1.0625 + 2.0**-23, 1.125 - 2.0**-23]
    bits = [int(b) for b in np.array(xs, dtype=np.float32).view(np.uint32)]
    bits += [int(b) for b in np.array([rng.gauss(0, 1) * 2.0 ** rng.randrange(-12, 10) for _ in range(48)],
                                      np.float32).view(np.uint32)]
    both = [0, 448, 464, 464.00003, 480, 248, 61440, 65520, 1e38, 1.5, 6, 7, 30, 7.75, 1, 2.0**-127, 1e-40, 2.0**-10,
            0.052]
    bits += [int(b) | 0x80000000 for b in np.array(both, dtype=np.float32).view(np.uint32)]
    bits += [0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 0x7F800001, 0xFF800001, 0xFFC12345, 0x7FFFFFFF, 0xFFFFFFFF,
             0x7FA00000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F7F7FFF, 0x7F7F8000, 0x00800000, 0x007FFFFF, 0x00400001, 0x003FFFFF,
             0x00200000, 0x00200001, 0x00008000, 0x00018000, 0x00008001, 0x00000001, 0x80000001, 0x3F808000, 0x3F818000]
    return list(dict.fromkeys(bits))


def f64_probes():
    rng = random.Random(100)
    xs = [0.0, -0.0, 0.052, 1 / 3, 448.0, 464.0, 464.0000000001, 463.9999999999, 480.0, 1e300, -1e300, 1e-300, 5e-324,
          1e39, 65519.99999999999, 65520.0, 65519.999, 3.4028235677973366e38, 3.4028235677973362e38, 2.0**-149,
          2.0**-150,
          2.0**-150 * 1.0000001, 1.5 * 2.0**-128, 61439.99999999, 61440.0, 247.9999999999, 248.0, 7.0,
          6.9999999999, 1e-45]
    for m in (1, 2, 3, 4, 7, 10):  # midpoints of the formats with m significand bits, off by less than f32 can see
        for _ in range(4):
            base = (rng.randrange(2**m) + 2**m + 0.5) * 2.0 ** (rng.randrange(-3, 3) - m)
            for d in (2.0**-40, -(2.0**-40), 2.0**-52, -(2.0**-52), 2.0**-13, -(2.0**-13)):
                xs.append(base * (1 + d))
    for tie in (2.0**-10, 2.0**-17, 2.0**-25, 2.0**-134, 3 * 2.0**-134, 1.5 * 2.0**5, 1.5 * 2.0**-80):
        xs += [tie * (1 + 2.0**-40), tie * (1 - 2.0**-40), tie]
    xs += [1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-11 + 2.0**-40, -(1 + 2.0**-8 + 2.0**-40)]
    xs += [1 + 2.0**-4 + 2.0**-12 + 2.0**-40, 2.0**-10 + 2.0**-35, 1 + 2.0**-4 + 2.0**-11,
           1 + 2.0**-4 + 2.0**-11 - 2.0**-20]
    bits = [f64_bits(float(x)) for x in xs]
    bits += [0x7FF0000000000000, 0xFFF0000000000000, 0x7FF8000000000000, 0xFFF8000000000000, 0x7FF0000000000001,
             0xFFF8000012345678, 0x7FEFFFFFFFFFFFFF]
    return list(dict.fromkeys(bits))


SOURCES = (("f32", np.uint32, np.float32, f32_probes), ("f64", np.uint64, np.float64, f64_probes))
TORCH = {"float8_e4m3fn": "e4m3fn", "float8_e4m3fnuz": "e4m3fnuz", "float8_e5m2": "e5m2", "float8_e5m2fnuz": "e5m2fnuz",
         "float8_e8m0fnu": "e8m0", "float4_e2m1fn_x2": "e2m1", "bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
ML_DTYPES = {"float8_e3m4": "e3m4", "float8_e4m3": "e4m3", "float8_e4m3b11fnuz": "e4m3b11fnuz",
             "float8_e4m3fn": "e4m3fn", "float8_e4m3fnuz": "e4m3fnuz", "float8_e5m2": "e5m2",
             "float8_e5m2fnuz": "e5m2fnuz", "float8_e8m0fnu": "e8m0", "float6_e2m3fn": "e2m3", "float6_e3m2fn": "e3m2",
             "float4_e2m1fn": "e2m1", "bfloat16": "bf16"}


def cast_entry(system, version, dtype, fmt, source, codes, **more):
    return {"system": system, "version": version, "dtype": dtype, "format": fmt, "source": source, **more,
            "codes": [FORMATS[fmt].hex(int(c)) for c in codes]}


def torch_casts(out):
    """casts-torch-VERSION.json: run this in an environment with that torch, then give the file to `--part`."""
    import torch

    entries = []
    for source, unsigned, floating, probes in SOURCES:
        bits = np.array(probes(), dtype=unsigned)
        tensor = torch.from_numpy(bits.view(floating).copy())
        for dtype, fmt in TORCH.items():
            if not hasattr(torch, dtype) or (source, dtype) == ("f32", "float32"):
                continue
            target = getattr(torch, dtype)
            width = {16: torch.int16, 32: torch.int32}.get(FORMATS[fmt].bits, torch.uint8)
            try:
                whole = tensor.to(target).view(width).numpy()
                single = np.concatenate([x.reshape(1).to(target).view(width).numpy() for x in tensor])
            except Exception as error:  # no such cast
                print(f"torch {torch.__version__} {source} -> {dtype}: {str(error)[:90]}")
                continue
            mask = (1 << FORMATS[fmt].bits) - 1
            whole, single = [int(x) & mask for x in whole], [int(x) & mask for x in single]
            differ = [hex(int(b)) for b, a, c in zip(bits, whole, single) if a != c]
            if differ:
                print(f"torch {torch.__version__} {source} -> {dtype}: scalar and vector path differ for {differ}")
            entries.append(cast_entry("torch", torch.__version__.split("+")[0], dtype, fmt, source, whole))
    path = out / f"casts-torch-{torch.__version__.split('+')[0]}.json"
    path.write_text(json.dumps(entries))
    print(path, len(entries))


CUDA_SOURCE = r"""
#include <cstdio>
#include <cstring>
#include <cstdint>
#include <cuda_fp8.h>
#include <cuda_fp6.h>
#include <cuda_fp4.h>
#define ALL(V, CVT)                                                                                                   \
  printf("e4m3fn sat %x\n", __nv_cvt_##CVT##_to_fp8(V, __NV_SATFINITE, __NV_E4M3));                                   \
  printf("e4m3fn nosat %x\n", __nv_cvt_##CVT##_to_fp8(V, __NV_NOSAT, __NV_E4M3));                                     \
  printf("e5m2 sat %x\n", __nv_cvt_##CVT##_to_fp8(V, __NV_SATFINITE, __NV_E5M2));                                     \
  printf("e5m2 nosat %x\n", __nv_cvt_##CVT##_to_fp8(V, __NV_NOSAT, __NV_E5M2));                                       \
  printf("e2m3 sat %x\n", __nv_cvt_##CVT##_to_fp6(V, __NV_E2M3, cudaRoundNearest));                                   \
  printf("e3m2 sat %x\n", __nv_cvt_##CVT##_to_fp6(V, __NV_E3M2, cudaRoundNearest));                                   \
  printf("e2m1 sat %x\n", __nv_cvt_##CVT##_to_fp4(V, __NV_E2M1, cudaRoundNearest));                                   \
  printf("e8m0 sat-up %x\n", __nv_cvt_##CVT##_to_e8m0(V, __NV_SATFINITE, cudaRoundPosInf));                           \
  printf("e8m0 nosat-up %x\n", __nv_cvt_##CVT##_to_e8m0(V, __NV_NOSAT, cudaRoundPosInf));                             \
  printf("e8m0 sat-toward-zero %x\n", __nv_cvt_##CVT##_to_e8m0(V, __NV_SATFINITE, cudaRoundZero));                    \
  printf("e8m0 nosat-toward-zero %x\n", __nv_cvt_##CVT##_to_e8m0(V, __NV_NOSAT, cudaRoundZero));
int main() {
  char kind[8];
  unsigned long long bits;
  while (scanf("%7s %llx", kind, &bits) == 2) {
    if (!strcmp(kind, "f32")) {
      uint32_t b = (uint32_t)bits;
      float x;
      memcpy(&x, &b, 4);
      ALL(x, float)
    } else {
      double x;
      memcpy(&x, &bits, 8);
      ALL(x, double)
    }
  }
}
"""


def cuda_casts(out, includes):
    """casts-cuda.json: the host code of NVIDIA's cuda_fp8.hpp, cuda_fp6.hpp and cuda_fp4.hpp, built with g++."""
    import subprocess
    import tempfile

    header = (includes[0] / "cuda_runtime_api.h").read_text()
    version = int(re.search(r"define CUDART_VERSION\s+(\d+)", header).group(1))
    version = f"{version // 1000}.{version % 1000 // 10}"
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "casts.cpp", Path(folder) / "casts"
        source.write_text(CUDA_SOURCE)
        subprocess.run(["g++", "-O1", "-std=c++17", *(f"-I{i}" for i in includes), str(source), "-o", str(program)],
                       check=True)
        entries = []
        for kind, _, _, probes in SOURCES:
            text = "".join(f"{kind} {b:x}\n" for b in probes())
            result = subprocess.run([str(program)], input=text, capture_output=True, text=True, check=True)
            lines = result.stdout.split("\n")
            columns = {}
            for line in lines:
                if line:
                    fmt, mode, code = line.split()
                    columns.setdefault((fmt, mode), []).append(int(code, 16))
            for (fmt, mode), codes in columns.items():
                entries.append(cast_entry("cuda", version, f"__nv_cvt {mode}", fmt, kind, codes, mode=mode))
    path = out / "casts-cuda.json"
    path.write_text(json.dumps(entries))
    print(path, len(entries))


def onnx_casts():
    import onnx
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    targets = {"FLOAT8E4M3FN": "e4m3fn", "FLOAT8E4M3FNUZ": "e4m3fnuz", "FLOAT8E5M2": "e5m2",
               "FLOAT8E5M2FNUZ": "e5m2fnuz", "FLOAT4E2M1": "e2m1", "FLOAT8E8M0": "e8m0", "BFLOAT16": "bf16",
               "FLOAT16": "fp16"}
    entries = []
    opset = onnx.defs.onnx_opset_version()
    for source, unsigned, floating, probes in SOURCES:
        bits = np.array(probes(), dtype=unsigned)
        kind = TensorProto.FLOAT if source == "f32" else TensorProto.DOUBLE
        for name, fmt in targets.items():
            target = getattr(TensorProto, name)
            if name == "FLOAT8E8M0":
                options = [{"saturate": s, "round_mode": r} for s in (1, 0) for r in ("up", "down", "nearest")]
            elif name.startswith("FLOAT8"):
                options = [{"saturate": 1}, {"saturate": 0}]
            else:
                options = [{}]
            for option in options:
                node = helper.make_node("Cast", ["x"], ["y"], to=target, **option)
                graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", kind, [None])],
                                          [helper.make_tensor_value_info("y", target, [None])])
                model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
                try:
                    y = ReferenceEvaluator(model).run(None, {"x": bits.view(floating)})[0]
                except Exception as error:
                    print(f"onnx {source} -> {name} {option}: {type(error).__name__} {str(error)[:90]}")
                    continue
                codes = np.ascontiguousarray(y).view(np.uint8 if y.dtype.itemsize == 1 else np.uint16)
                mask = (1 << FORMATS[fmt].bits) - 1
                entries.append(cast_entry("onnx", onnx.__version__, name, fmt, source, [int(c) & mask for c in codes],
                                          opset=opset, **option))
    return entries


def ml_dtypes_casts():
    import ml_dtypes

    entries = []
    for source, unsigned, floating, probes in SOURCES:
        values = np.array(probes(), dtype=unsigned).view(floating)
        for dtype, fmt in ML_DTYPES.items():
            got = values.astype(getattr(ml_dtypes, dtype))
            codes = got.view(np.uint8 if got.dtype.itemsize == 1 else np.uint16)
            mask = (1 << FORMATS[fmt].bits) - 1
            codes = [int(c) & mask for c in codes]
            entries.append(cast_entry("ml_dtypes", ml_dtypes.__version__, dtype, fmt, source, codes))
        for dtype, fmt, view in (("float16", "fp16", np.uint16), ("float32", "fp32", np.uint32)):
            if source != "f32" or dtype != "float32":
                entries.append(cast_entry("numpy", np.__version__, dtype, fmt, source, values.astype(dtype).view(view)))
    return entries


def gfloat_casts():
    """gfloat in its three saturation modes, for the P3109 formats."""
    import gfloat
    from gfloat import RoundMode, encode_float, round_float
    from gfloat.formats import format_info_p3109
    from gfloat.types import Domain, Signedness

    entries = []
    source, unsigned, floating, probes = SOURCES[0]
    for k, p, signed, extended in ((8, 3, True, True), (8, 4, True, True), (8, 4, True, False), (8, 1, False, True),
                                   (8, 4, False, True), (8, 4, False, False)):
        name = f"binary{k}p{p}{'s' if signed else 'u'}{'e' if extended else 'f'}"
        info = format_info_p3109(k, p, Signedness.Signed if signed else Signedness.Unsigned,
                                 Domain.Extended if extended else Domain.Finite)
        for sat in (False, True):
            codes = []
            for b in probes():
                x = f32_of(b)
                try:
                    codes.append(FORMATS[name].hex(encode_float(info, round_float(info, x, RoundMode.TiesToEven, sat))))
                except Exception:
                    codes.append(None)
            entries.append({"system": "gfloat", "version": "0.5.2", "dtype": f"{info.name} sat={sat}", "format": name,
                            "source": source, "saturate": sat, "codes": codes})
    return entries


def make_casts(out, parts):
    entries = []
    for part in parts:
        entries += json.loads(Path(part).read_text())
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        entries += ml_dtypes_casts() + onnx_casts() + gfloat_casts()
    probes = {source: [f"0x{b:0{8 if source == 'f32' else 16}x}" for b in p()] for source, _, _, p in SOURCES}
    assert all(len(e["codes"]) == len(probes[e["source"]]) for e in entries)
    print(f"casts: {len(entries)} systems x dtypes, {({k: len(v) for k, v in probes.items()})} probes, "
          f"{sum(len(e['codes']) for e in entries)} results")
    write(out / "casts.json.gz", {"probes": probes, "casts": entries})


# ---------------------------------------------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("sections", nargs="*", help="p3109 exact blocks casts; or torch-casts, cuda-casts for --part")
    parser.add_argument("--check", type=Path, help="vectors.json.gz to compare the reference arithmetic with")
    parser.add_argument("--held-out", type=Path, help="also write many more GGUF blocks here")
    parser.add_argument("--part", type=Path, action="append", default=[], help="output of torch-casts or cuda-casts")
    parser.add_argument("--cuda-include", type=Path, action="append",
                        help="for cuda-casts: the folder of cuda_fp8.h; then, if elsewhere, that of crt/")
    args = parser.parse_args()
    sections = args.sections or ["p3109", "exact", "blocks", "casts"]
    args.out.mkdir(parents=True, exist_ok=True)
    wrong = (check(args.check) + check_blocks(args.check)) if args.check else 0
    for section in sections:
        if section == "torch-casts":
            torch_casts(args.out)
        elif section == "cuda-casts":
            cuda_casts(args.out, args.cuda_include)
        elif section == "casts":
            make_casts(args.out, args.part)
        elif section == "blocks":
            make_blocks(args.out, args.held_out)
        else:
            {"p3109": make_p3109, "exact": make_exact}[section](args.out)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
