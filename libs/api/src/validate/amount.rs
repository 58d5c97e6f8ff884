//! Resource amounts as exact numbers of billionths: what comparing and adding quantities needs, and no more.
//!
//! In: quantity texts that the decoder let through. Amounts finer than a billionth round up, as Kubernetes rounds them.

const UNIT: i128 = 1_000_000_000;

/// An amount in billionths; beyond the range of Kubernetes' quantities it stays at the end of the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Amount(i128);

impl Amount {
    pub(crate) const ZERO: Self = Self(0);

    /// Reads `100m`, `1.5Gi`, `2e3`; `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        let (mut value, mut divisor) =
            (digits.checked_mul(UNIT)?, 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?);
        match scale(suffix)? {
            Scale::Binary(exponent) => value = value.checked_mul(1_i128 << exponent)?,
            Scale::Decimal(exponent @ 0..) => {
                value = value.checked_mul(10_i128.checked_pow(exponent.unsigned_abs())?)?
            }
            Scale::Decimal(exponent) => {
                divisor = divisor.checked_mul(10_i128.checked_pow(exponent.unsigned_abs())?)?
            }
        }
        let rounded = value / divisor + i128::from(value % divisor != 0);
        Some(Self(if negative { -rounded } else { rounded }))
    }

    /// Whether it is a whole number.
    pub(crate) fn is_whole(self) -> bool {
        self.0 % UNIT == 0
    }

    /// Whether it is a whole number of thousandths.
    pub(crate) fn is_whole_milli(self) -> bool {
        self.0 % (UNIT / 1000) == 0
    }

    /// The text in thousandths, rounded up.
    pub(crate) fn to_milli(self) -> String {
        let step = UNIT / 1000;
        let up = i128::from(self.0 % step != 0 && self.0 > 0);
        format!("{}m", self.0 / step + up)
    }

    /// The sum.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The quotient as a number, for ratios.
    pub(crate) fn ratio(self, of: Self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "ratios are compared coarsely")]
        if of.0 == 0 { 0.0 } else { self.0 as f64 / of.0 as f64 }
    }
}

enum Scale {
    Binary(u32),
    Decimal(i32),
}

fn scale(suffix: &str) -> Option<Scale> {
    Some(match suffix {
        "" => Scale::Decimal(0),
        "n" => Scale::Decimal(-9),
        "u" => Scale::Decimal(-6),
        "m" => Scale::Decimal(-3),
        "k" => Scale::Decimal(3),
        "M" => Scale::Decimal(6),
        "G" => Scale::Decimal(9),
        "T" => Scale::Decimal(12),
        "P" => Scale::Decimal(15),
        "E" => Scale::Decimal(18),
        "Ki" => Scale::Binary(10),
        "Mi" => Scale::Binary(20),
        "Gi" => Scale::Binary(30),
        "Ti" => Scale::Binary(40),
        "Pi" => Scale::Binary(50),
        "Ei" => Scale::Binary(60),
        exponent => Scale::Decimal(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_amounts_are_equal_however_written() {
        for (a, b) in [
            ("1", "1000m"),
            ("1Gi", "1073741824"),
            ("2e3", "2k"),
            ("0.5", "500m"),
            ("-1", "-1000m"),
            ("1.5Ki", "1536"),
        ] {
            assert_eq!(Amount::parse(a), Amount::parse(b), "{a} {b}");
        }
        for bad in ["", "x", "1x", ".", "1.2.3"] {
            assert_eq!(Amount::parse(bad), None, "{bad}");
        }
        assert_eq!(Amount::parse("100u").map(Amount::to_milli).as_deref(), Some("1m"));
    }
}
