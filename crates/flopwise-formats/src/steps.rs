//! The working of a conversion, step by step, as a teacher would write it on the board.
//!
//! Not here: the numbers ([`crate::explain`]).

use crate::block::affine::Affine;
use crate::codec::{self, Rounding, Rules, Subnormals};
use crate::exact::{Exact, Rational};
use crate::explain::{Class, Conversion, Neighbour, Step, bit_fields, hexadecimal};
use crate::format::{Float, Layout};

/// Binary digits of an expansion shown before it is cut with an ellipsis.
const SHOWN_BITS: usize = 96;
/// The longest period looked for.
const MAX_PERIOD: usize = 4096;
/// Decimal digits of a value shown before it is rounded for reading.
const SHOWN_DIGITS: usize = 120;
/// Where hand calculations commonly stop.
const HAND_BITS: i64 = 10;

/// The steps from the value asked to the code stored.
///
/// ```
/// use flopwise_formats::{Format, codec::Rules, decimal, explain, steps};
/// let value = decimal::parse("0.052").unwrap().value;
/// let conversion = explain::convert(Format::FP32, &value, Rules::IEEE).unwrap();
/// let steps = steps::steps(&conversion);
/// assert_eq!(steps[1].title, "Normalise");
/// assert!(steps.last().unwrap().lines[1].contains("65,012 ulp"));
/// ```
pub fn steps(conversion: &Conversion) -> Vec<Step> {
    let mut steps = match (&conversion.input, conversion.format.layout) {
        (Exact::Finite(input), Layout::Float(float)) if !input.is_zero() => {
            float_steps(conversion, float, input)
        }
        (Exact::Finite(input), Layout::SignedInteger | Layout::UnsignedInteger) => {
            vec![integer_step(conversion, input)]
        }
        (Exact::Finite(_), Layout::CodeBook(_)) => vec![Step {
            title: "Look up",
            lines: vec!["the entry of the table that is nearest; ties go to the lower".to_owned()],
        }],
        (_, _) => vec![special_step(conversion)],
    };
    steps.push(stored_step(conversion));
    if conversion.below.is_some() || conversion.above.is_some() {
        steps.push(neighbours_step(conversion));
    }
    steps.extend(hand_step(conversion));
    steps
}

/// A finite value that is not zero, in a float.
fn float_steps(conversion: &Conversion, float: Float, input: &Rational) -> Vec<Step> {
    let Some(exponent) = input.floor_log2() else { return Vec::new() };
    let mut steps = vec![expansion_step(input), normalise_step(input, exponent)];
    let lowest = i64::from(float.min_exponent());
    steps.push(bias_step(float, exponent, lowest));
    let is_daz = conversion.rules.subnormals == Subnormals::TakenForZero;
    if is_daz && exponent < lowest {
        let line = format!("below 2^{lowest} and subnormals are taken for zero: nothing is kept");
        steps.push(Step { title: "Keep", lines: vec![line] });
        return steps;
    }
    steps.push(round_step(conversion, float, input, exponent));
    if let Some(step) = beyond_step(conversion, float) {
        steps.push(step);
    }
    steps
}

fn expansion_step(input: &Rational) -> Step {
    let mut lines = vec![format!("{} = {} in binary", shown(input), expansion(input))];
    match input.binary_period(MAX_PERIOD) {
        Some(0) => {}
        Some(1) => lines.push("the digit in parentheses repeats for ever".to_owned()),
        Some(period) if period <= SHOWN_BITS => {
            lines.push(format!("the {period} digits in parentheses repeat for ever"));
        }
        Some(period) => lines.push(format!("from `(` on, {period} digits repeat for ever")),
        None => lines.push(format!("it repeats after more than {MAX_PERIOD} digits")),
    }
    Step { title: "Binary expansion", lines }
}

/// `0.00(0011)`, cut after [`SHOWN_BITS`] digits.
fn expansion(input: &Rational) -> String {
    let sign = if input.is_negative() { "-" } else { "" };
    let top = input.floor_log2().unwrap_or(0).max(0);
    let bottom = input.first_repeating_weight();
    let leading_zeros = (-1 - input.floor_log2().unwrap_or(0)).max(0);
    let is_long = leading_zeros > SHOWN_BITS as i64;
    let first = if is_long { input.floor_log2().unwrap_or(0) } else { top };
    // The last digit to be shown: of an expansion that ends, or of the first period.
    let last = match input.binary_period(MAX_PERIOD) {
        Some(0) => bottom.min(0),
        Some(period) => bottom - period as i64 + 1,
        None => i64::MIN,
    };
    let end = last.max(first - SHOWN_BITS as i64);
    let bits = input.bits_from(first, (first - end + 1) as usize);
    let mut text = sign.to_owned();
    if is_long {
        text += &format!("0.<{leading_zeros} zeros>");
    }
    for (bit_idx, bit) in bits.into_iter().enumerate() {
        let weight = first - bit_idx as i64;
        if weight == -1 && !is_long {
            text.push('.');
        }
        if !input.is_binary_fraction() && weight == bottom {
            text.push('(');
        }
        text.push(if bit { '1' } else { '0' });
    }
    if end > 0 {
        text += &format!("… ({} digits before the point)", top + 1);
    } else if end > last {
        text.push('…');
    } else if !input.is_binary_fraction() {
        text.push(')');
    }
    text
}

fn normalise_step(input: &Rational, exponent: i64) -> Step {
    let sign = if input.is_negative() { "-" } else { "" };
    let ends = input.is_binary_fraction();
    let n_bits = if ends {
        ((exponent - input.first_repeating_weight()) as usize).min(SHOWN_BITS) + 1
    } else {
        32
    };
    let digits = digits(&input.bits_from(exponent, n_bits));
    let is_cut = !ends || n_bits > SHOWN_BITS;
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    let more = if is_cut { "…" } else { "" };
    let line = format!("= {sign}{first}{point}{rest}{more} × 2^{exponent}");
    Step { title: "Normalise", lines: vec![line] }
}

fn digits(bits: &[bool]) -> String {
    bits.iter().map(|bit| if *bit { '1' } else { '0' }).collect()
}

fn bias_step(float: Float, exponent: i64, lowest: i64) -> Step {
    let Float { exponent_bits, bias, .. } = float;
    let largest = i64::from(max_exponent(float));
    let width = usize::from(exponent_bits);
    let line = if exponent < lowest && float.has_zero {
        format!(
            "the exponent {exponent} is below the smallest, {lowest}: the exponent field is 0 and \
             leading zeros take the place of the hidden 1 (subnormal)"
        )
    } else if exponent < lowest || exponent > largest {
        format!("the exponent {exponent} is outside {lowest} to {largest}")
    } else {
        let field = exponent + i64::from(bias);
        format!("exponent {exponent} + bias {bias} = {field} = {field:0width$b} in {width} bits")
    };
    Step { title: "Bias", lines: vec![line] }
}

/// The exponent of the largest finite value.
fn max_exponent(float: Float) -> i32 {
    let field = (float.max_finite_code() >> float.significand_bits) as i32;
    if float.has_zero { (field - 1).max(0) + float.min_exponent() } else { field - float.bias }
}

fn round_step(conversion: &Conversion, float: Float, input: &Rational, exponent: i64) -> Step {
    let kept_bits = i64::from(float.significand_bits);
    let top = if float.has_zero { exponent.max(i64::from(float.min_exponent())) } else { exponent };
    let last = top - kept_bits;
    let kept = digits(&input.bits_from(top, kept_bits as usize + 1));
    let (hidden, trailing) = kept.split_at(1);
    let after = input.bits_from(last - 1, 2);
    let dropped = dropped_part(input, last);
    let below = dropped.scaled(2).minus(&dropped.scaled(2).floor());
    let sticky = u8::from(!below.is_zero());
    let [guard, round] = [after[0], after[1]].map(u8::from);
    let point = if trailing.is_empty() { "" } else { "." };
    let mut lines = vec![format!(
        "{hidden}{point}{trailing} | guard {guard} round {round} sticky {sticky} \
             (the next digit, the one after, and whether any 1 follows)"
    )];
    lines.push(decision(conversion, &dropped));
    let name = if kept_bits == 0 { "Keep no bit after the point" } else { "Keep and round" };
    Step { title: name, lines }
}

/// What lies below the last kept bit, as a fraction of it.
fn dropped_part(input: &Rational, last: i64) -> Rational {
    let scaled = input.abs().scaled(-last);
    scaled.minus(&scaled.floor())
}

/// Why the value went the way it did.
fn decision(conversion: &Conversion, dropped: &Rational) -> String {
    if dropped.is_zero() {
        return "nothing is dropped: exact".to_owned();
    }
    let half = Rational::binary(false, 1, -1);
    let share = dropped.to_scientific(4);
    let compared = match dropped.cmp_magnitude(&half) {
        std::cmp::Ordering::Less => "less than half",
        std::cmp::Ordering::Equal => "exactly half",
        std::cmp::Ordering::Greater => "more than half",
    };
    if conversion.encoded.flags.is_overflow {
        return format!("dropped: {share} of the last bit, {compared}");
    }
    let is_half = compared == "exactly half";
    let away = is_rounded_away(conversion);
    let went = if away { "away from zero" } else { "toward zero" };
    let why = match conversion.rules.rounding {
        Rounding::NearestEven if is_half => "a tie goes to the even code",
        Rounding::NearestAway if is_half => "a tie goes away from zero",
        Rounding::NearestEven | Rounding::NearestAway => "the nearest is taken",
        Rounding::TowardZero => "truncation",
        Rounding::Up => "toward plus infinity",
        Rounding::Down => "toward minus infinity",
        Rounding::ToOdd => "the odd code of the two is taken",
        Rounding::Stochastic(_) => "the random bits decide",
    };
    format!("dropped: {share} of the last bit, {compared}; {why}: {went}")
}

/// Whether the codec moved to the code of larger magnitude.
fn is_rounded_away(conversion: &Conversion) -> bool {
    let truncating = Rules { rounding: Rounding::TowardZero, ..conversion.rules };
    let truncated = codec::encode(conversion.format, &conversion.input, truncating).code;
    truncated != conversion.encoded.code
}

fn beyond_step(conversion: &Conversion, float: Float) -> Option<Step> {
    let flags = conversion.encoded.flags;
    let largest = codec::decode(conversion.format, float.max_finite_code())?;
    if flags.is_overflow {
        let line = format!(
            "rounded, it is beyond the largest value {largest}; overflow is {}: {}",
            conversion.rules.overflow, conversion.stored
        );
        return Some(Step { title: "Overflow", lines: vec![line] });
    }
    if flags.is_invalid {
        let line = format!("the format has no code for it; taken is {}", conversion.stored);
        return Some(Step { title: "No such value", lines: vec![line] });
    }
    if conversion.class == Class::Zero {
        let line = "less than half of the smallest value is left: zero".to_owned();
        let flushed = "a subnormal result is flushed to zero".to_owned();
        let is_kept = conversion.rules.subnormals == Subnormals::Kept;
        let lines = vec![if is_kept { line } else { flushed }];
        return Some(Step { title: "Underflow", lines });
    }
    None
}

fn integer_step(conversion: &Conversion, input: &Rational) -> Step {
    let rounding = conversion.rules.rounding;
    let flags = conversion.encoded.flags;
    let line = match (flags.is_overflow, flags.is_inexact) {
        (true, _) => format!("{} is beyond the range: clamped", shown(input)),
        (false, true) => format!("{} rounded to an integer ({rounding})", shown(input)),
        (false, false) => format!("{} is an integer in range", shown(input)),
    };
    Step { title: "Round to an integer", lines: vec![line] }
}

/// The steps of a scaled integer: divide, round, add the zero point, clamp.
pub fn affine_steps(affine: &Affine, conversion: &Conversion) -> Vec<Step> {
    let scale = affine.scale();
    let zero = affine.zero_point();
    let mut steps = Vec::new();
    if let Some(quotient) = conversion.input.rational().and_then(|input| input.over(scale)) {
        let input = shown_exact(&conversion.input);
        let line = format!("{input} / {scale} = {}", shown(&quotient));
        steps.push(Step { title: "Divide by the scale", lines: vec![line] });
        let clamped =
            if conversion.encoded.flags.is_overflow { ", clamped to the range" } else { "" };
        let code = codec::decode(affine.format(), conversion.encoded.code);
        let code = code.map_or_else(String::new, |code| code.to_string());
        let line =
            format!("rounded to nearest, ties to even, plus zero point {zero}{clamped}: {code}");
        steps.push(Step { title: "Round and add the zero point", lines: vec![line] });
    }
    steps.push(stored_step(conversion));
    steps.push(neighbours_step(conversion));
    steps
}

fn special_step(conversion: &Conversion) -> Step {
    let Conversion { input, format, stored, .. } = conversion;
    let line = match input {
        Exact::Nan { .. } if conversion.encoded.flags.is_invalid => {
            format!("{format} has no NaN; taken is {stored}")
        }
        Exact::Nan { .. } => format!("{format} has a code for NaN"),
        Exact::Infinity { .. } if matches!(stored, Exact::Infinity { .. }) => {
            format!("{format} has a code for infinity")
        }
        Exact::Infinity { .. } => {
            format!("infinity, overflow is {}: {stored}", conversion.rules.overflow)
        }
        Exact::Beyond { is_huge: true, .. } => "beyond every format".to_owned(),
        Exact::Beyond { is_huge: false, .. } => {
            "smaller than half of every smallest value".to_owned()
        }
        Exact::Finite(_) => "zero is a code of its own, or the nearest there is".to_owned(),
    };
    Step { title: "Special value", lines: vec![line] }
}

fn stored_step(conversion: &Conversion) -> Step {
    let Conversion { format, encoded, stored, class, .. } = conversion;
    let mut lines = vec![
        format!("{} = {}", bit_fields(*format, encoded.code), hexadecimal(*format, encoded.code)),
        format!("stands for {}{} ({class})", shown_exact(stored), wide(stored)),
    ];
    if let Some(error) = &conversion.error {
        lines.push(match (&conversion.relative_error, &conversion.ulp_error) {
            _ if error.is_zero() => "error 0: exact".to_owned(),
            (Some(relative), Some(ulps)) => format!(
                "error {} ({} relative, {} ulp)",
                error.to_scientific(4),
                relative.to_scientific(4),
                ulps.to_scientific(4)
            ),
            (_, _) => format!("error {}", error.to_scientific(4)),
        });
    }
    Step { title: "Stored", lines }
}

/// Says that digits were left out, if they were.
fn wide(value: &Exact) -> &'static str {
    if value.to_string().len() > SHOWN_DIGITS { " (rounded for reading)" } else { "" }
}

fn shown_exact(value: &Exact) -> String {
    value.rational().map_or_else(|| value.to_string(), shown)
}

/// All digits of a value where those can be read.
fn shown(value: &Rational) -> String {
    let text = value.to_string();
    if text.len() > SHOWN_DIGITS { value.to_scientific(40) } else { text }
}

fn neighbours_step(conversion: &Conversion) -> Step {
    let line = |side: &str, neighbour: &Option<Neighbour>| {
        let neighbour = neighbour.as_ref()?;
        let distance = match &neighbour.distance {
            Some(distance) => format!(", {} away", distance.to_scientific(4)),
            None => String::new(),
        };
        let code = hexadecimal(conversion.format, neighbour.code);
        Some(format!("{side} {code} = {}{distance}", shown_exact(&neighbour.value)))
    };
    let mut lines = Vec::from_iter(line("below ", &conversion.below));
    if let Some(error) = &conversion.error {
        let code = hexadecimal(conversion.format, conversion.encoded.code);
        let value = shown_exact(&conversion.stored);
        lines.push(format!("stored {code} = {value}, {} away", error.abs().to_scientific(4)));
    }
    lines.extend(line("above ", &conversion.above));
    Step { title: "Neighbours", lines }
}

/// What a hand calculation stores that cuts the expansion off after ten binary places.
fn hand_step(conversion: &Conversion) -> Option<Step> {
    let float = conversion.format.float()?;
    let input = conversion.input.rational()?;
    let cut = input.abs().scaled(HAND_BITS).floor().scaled(-HAND_BITS);
    let top = input.floor_log2()?.max(0);
    if cut == input.abs() || top > HAND_BITS || float.precision() as i64 <= HAND_BITS {
        return None;
    }
    let written = digits(&input.bits_from(top, (top + HAND_BITS + 1) as usize));
    let (whole, fraction) = written.split_at(written.len() - HAND_BITS as usize);
    let sign = if input.is_negative() { "-" } else { "" };
    let value = if input.is_negative() { cut.negated() } else { cut };
    let format = conversion.format;
    let stored = codec::encode(format, &Exact::Finite(value.clone()), conversion.rules).code;
    if stored == conversion.encoded.code {
        return None;
    }
    let apart = grouped(stored.abs_diff(conversion.encoded.code));
    let lines = vec![
        format!("cut off after {HAND_BITS} binary places: {sign}{whole}.{fraction}b = {value}"),
        format!("would store {}, {apart} ulp away", hexadecimal(format, stored)),
    ];
    Some(Step { title: "By hand", lines })
}

/// `65,012`.
fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (digit_idx, digit) in digits.chars().enumerate() {
        if digit_idx > 0 && (digits.len() - digit_idx).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
